// Reference: the selective scan over all directions of a block, merged and gated.
#include "reference/reference.h"

namespace ptq4vm {
namespace cpu {
namespace reference {
namespace {

double softplus(double v) { return v > 20.0 ? v : std::log1p(std::exp(v)); }

// Adds the output of one direction, one channel, to merged[row]. Padding (row −1) is a row of zeros: the state decays by
// the step softplus(0) and nothing is written.
void scan_direction(const ScanDirection& dir, int64_t image, int64_t channel, int32_t d_state, double* state,
                    double* merged) {
  const int64_t d_inner = dir.u.channels;
  for (int32_t n = 0; n < d_state; ++n) state[n] = 0.0;
  for (int64_t t = 0; t < dir.u.rows; ++t) {
    const int64_t row = dir.table ? dir.table[t] : t;
    const bool padding = row < 0;
    const double delta = softplus(padding ? 0.0 : dir.delta.row(image, row)[channel]);
    for (int32_t n = 0; n < d_state; ++n) state[n] *= std::exp(delta * dir.a[n * d_inner + channel]);
    if (padding) continue;
    const double u = dir.u.row(image, row)[channel];
    const float* b = dir.b.row(image, row);
    const float* c = dir.c.row(image, row);
    double y = dir.d[channel] * u;
    for (int32_t n = 0; n < d_state; ++n) {
      state[n] += delta * b[n] * u;
      y += c[n] * state[n];
    }
    merged[row] += y;
  }
}

// Item: one channel of one image.
void selective_scan(const SelectiveScanArgs& a, Span span, void* scratch) {
  const int64_t rows = a.directions[0].u.rows, channels = a.directions[0].u.channels;
  double* merged = static_cast<double*>(scratch);  // [rows]
  double* state = merged + rows;                   // [d_state]
  for (int64_t item = span.begin; item < span.end; ++item) {
    const int64_t image = item / channels, channel = item % channels;
    for (int64_t row = 0; row < rows; ++row) merged[row] = 0.0;
    for (int32_t d = 0; d < a.direction_count; ++d) {
      scan_direction(a.directions[d], image, channel, a.d_state, state, merged);
    }
    for (int64_t row = 0; row < rows; ++row) {
      double gated = a.out_scale * merged[row];
      if (!a.z.empty()) gated *= silu(a.z.row(image, row)[channel]);
      const float y = static_cast<float>(gated);
      if (!a.y.empty()) a.y.row(image, row)[channel] = y;
      put_code(a.out, image, row, channel, y);
    }
  }
}

int64_t items(const SelectiveScanArgs& a) {
  return static_cast<int64_t>(a.directions[0].u.images) * a.directions[0].u.channels;
}
size_t scratch(const SelectiveScanArgs& a) {
  return (static_cast<size_t>(a.directions[0].u.rows) + a.d_state) * sizeof(double);
}

}  // namespace

OpEntry<SelectiveScanArgs> selective_scan_entry() { return {items, scratch, selective_scan}; }

}  // namespace reference
}  // namespace cpu
}  // namespace ptq4vm
