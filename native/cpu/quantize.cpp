// quantize: u8 codes of a float tensor; fake_quantize: what those codes stand for, in float32.
//
// x f32 [images, rows, channels] → q u8, or y f32, of the same shape; the formulas are arith::quantize_code
// (reciprocals) and arith::fake_quantize (divisions, the definition of ARCHITECTURE "Mathematics"), and both results equal
// theirs bit for bit. A NaN gets the code of the lower clamp, 0.
//
// A work item is a block of rows, counted across images.
#include "cpu/entries.h"
#include "simd/rows.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {
namespace {

constexpr int64_t kRowsPerItem = 16;

template <class Args>
int64_t items(const Args& args) {
  return ceil_div(static_cast<int64_t>(args.x.images) * args.x.rows, kRowsPerItem);
}

template <class Args>
size_t no_scratch(const Args&) {
  return 0;
}

// Calls body(image, row) for the rows of the items in span.
template <class Body>
void for_each_row(const View<const float>& x, Span span, Body body) {
  const int64_t all = static_cast<int64_t>(x.images) * x.rows;
  const int64_t end = span.end * kRowsPerItem < all ? span.end * kRowsPerItem : all;
  for (int64_t i = span.begin * kRowsPerItem; i < end; ++i) body(i / x.rows, i % x.rows);
}

void quantize_run(const QuantizeArgs& args, Span span, void*) {
  const int channels = args.x.channels;
  for_each_row(args.x, span, [&](int64_t image, int64_t row) {
    const float* x = args.x.row(image, row);
    const CodeRow codes = code_row(args.out, image, row);
    for (int k = 0; k < channels; k += vf::W) {
      store_codes(codes, k, load_up_to(x + k, channels - k), channels - k);
    }
  });
}

void fake_quantize_run(const FakeQuantizeArgs& args, Span span, void*) {
  const int channels = args.x.channels;
  for_each_row(args.x, span, [&](int64_t image, int64_t row) {
    const float* x = args.x.row(image, row);
    float* y = args.y.row(image, row);
    const int64_t token = args.per_token ? row : 0;
    const vf scale = set1(args.act_scale[token]);
    const vf zero_point = set1(static_cast<float>(args.act_zero[token]));
    const vf qmax = set1(static_cast<float>(args.qmax));
    for (int k = 0; k < channels; k += vf::W) {
      const int left = channels - k;
      vf v = load_up_to(x + k, left);
      if (args.smooth != nullptr) v = v / load_up_to(args.smooth + k, left);
      const vf c = clamp(v / scale + zero_point, zero(), qmax);
      store_up_to(y + k, rint(c - zero_point) * scale, left);
    }
  });
}

}  // namespace

OpEntry<QuantizeArgs> quantize_entry() { return {items<QuantizeArgs>, no_scratch<QuantizeArgs>, quantize_run}; }

OpEntry<FakeQuantizeArgs> fake_quantize_entry() {
  return {items<FakeQuantizeArgs>, no_scratch<FakeQuantizeArgs>, fake_quantize_run};
}

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
