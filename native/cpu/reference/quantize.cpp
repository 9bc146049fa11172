// Reference: activation codes, and what the quantizer keeps of a value (fake quantization).
#include "reference/reference.h"

namespace ptq4vm {
namespace cpu {
namespace reference {
namespace {

// Item: one row of one image.
void quantize(const QuantizeArgs& a, Span span, void*) {
  for (int64_t item = span.begin; item < span.end; ++item) {
    const int64_t image = item / a.x.rows, row = item % a.x.rows;
    for (int64_t k = 0; k < a.x.channels; ++k) put_code(a.out, image, row, k, a.x.row(image, row)[k]);
  }
}

// Item: one row of one image. Division as in the definition, not the reciprocals of the integer kernels.
void fake_quantize(const FakeQuantizeArgs& a, Span span, void*) {
  for (int64_t item = span.begin; item < span.end; ++item) {
    const int64_t image = item / a.x.rows, row = item % a.x.rows;
    const int64_t step = a.per_token ? row : 0;
    const float zero = static_cast<float>(a.act_zero[step]);
    for (int64_t k = 0; k < a.x.channels; ++k) {
      const float smooth = a.smooth ? a.smooth[k] : 1.0f;
      a.y.row(image, row)[k] =
          arith::fake_quantize(a.x.row(image, row)[k], smooth, a.act_scale[step], zero, static_cast<float>(a.qmax));
    }
  }
}

template <class Args>
int64_t rows_of_x(const Args& a) {
  return static_cast<int64_t>(a.x.images) * a.x.rows;
}

}  // namespace

OpEntry<QuantizeArgs> quantize_entry() { return {rows_of_x<QuantizeArgs>, no_scratch<QuantizeArgs>, quantize}; }
OpEntry<FakeQuantizeArgs> fake_quantize_entry() {
  return {rows_of_x<FakeQuantizeArgs>, no_scratch<FakeQuantizeArgs>, fake_quantize};
}

}  // namespace reference
}  // namespace cpu
}  // namespace ptq4vm
