// Reference: depthwise convolution, causal in scan order, then SiLU.
#include "reference/reference.h"

namespace ptq4vm {
namespace cpu {
namespace reference {
namespace {

// Item: one image. Tap width − 1 multiplies the token of the position itself, tap 0 the oldest.
void conv_silu(const ConvSiluArgs& a, Span span, void*) {
  for (int64_t image = span.begin; image < span.end; ++image) {
    for (int64_t t = 0; t < a.x.rows; ++t) {
      const int64_t row = a.table ? a.table[t] : t;
      if (row < 0) continue;  // padding: there is nothing to write
      for (int64_t k = 0; k < a.x.channels; ++k) {
        double sum = a.bias ? a.bias[k] : 0.0;
        for (int64_t j = 0; j < a.width; ++j) {
          const int64_t position = t - (a.width - 1) + j;
          if (position < 0) continue;  // zero before the start
          const int64_t source = a.table ? a.table[position] : position;
          if (source < 0) continue;  // padding is zero, too
          sum += static_cast<double>(a.weight[j * a.x.channels + k]) * a.x.row(image, source)[k];
        }
        const float y = static_cast<float>(silu(sum));
        if (!a.y.empty()) a.y.row(image, row)[k] = y;
        put_code(a.out, image, row, k, y);
      }
    }
  }
}

int64_t items(const ConvSiluArgs& a) { return a.x.images; }

}  // namespace

OpEntry<ConvSiluArgs> conv_silu_entry() { return {items, no_scratch<ConvSiluArgs>, conv_silu}; }

}  // namespace reference
}  // namespace cpu
}  // namespace ptq4vm
