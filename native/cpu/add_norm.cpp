// add_norm: s = x + residual, then RMSNorm or LayerNorm of s, in one pass over the row while it is in L1.
//
//   RMSNorm    y[t, k] = s[t, k] / √(mean_k s² + ε) · weight[k] (+ bias[k])
//   LayerNorm  y[t, k] = (s[t, k] − mean_k s) / √(var_k s + ε) · weight[k] (+ bias[k]), biased variance, two passes
//
// x, residual, residual_out, y f32 [images, rows, channels]; residual, residual_out and y may each be absent, and
// residual_out may be the same memory as residual. y and/or u8 codes of y come out. Sums run in the lanes of four
// registers that are added in a fixed order: the result depends on the instruction set alone.
//
// A work item is a block of rows, counted across images.
#include "cpu/entries.h"
#include "simd/rows.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {
namespace {

constexpr int64_t kRowsPerItem = 8;

// Four sums at a time hide the latency of the addition.
constexpr int kSums = 4;

struct Sums {
  vf v[kSums];
};

inline Sums no_sums() { return {{zero(), zero(), zero(), zero()}}; }
inline float total(const Sums& s) { return reduce_add((s.v[0] + s.v[1]) + (s.v[2] + s.v[3])); }

// s = x (+ residual) into `to`, where that is not null.
void add_row(const float* x, const float* residual, float* to, int channels) {
  for (int k = 0; k < channels; k += vf::W) {
    const int left = channels - k;
    const vf v = load_up_to(x + k, left);
    store_up_to(to + k, residual != nullptr ? v + load_up_to(residual + k, left) : v, left);
  }
}

float sum(const float* s, int channels) {
  Sums sums = no_sums();
  int k = 0;
  for (; k + kSums * vf::W <= channels; k += kSums * vf::W) {
    for (int i = 0; i < kSums; ++i) sums.v[i] = sums.v[i] + load(s + k + i * vf::W);
  }
  for (int i = 0; k < channels; k += vf::W, ++i) sums.v[i] = sums.v[i] + load_up_to(s + k, channels - k);
  return total(sums);
}

// Σ (s − center)².
float sum_squares(const float* s, int channels, vf center) {
  Sums sums = no_sums();
  int k = 0;
  for (; k + kSums * vf::W <= channels; k += kSums * vf::W) {
    for (int i = 0; i < kSums; ++i) {
      const vf d = load(s + k + i * vf::W) - center;
      sums.v[i] = fma(d, d, sums.v[i]);
    }
  }
  for (int i = 0; k < channels; k += vf::W, ++i) {
    const int left = channels - k;
    vf d = load_up_to(s + k, left) - center;
    if (left < vf::W) {  // lanes past the end hold −center
      float lane[vf::W];
      store(lane, d);
      d = load_n(lane, left);
    }
    sums.v[i] = fma(d, d, sums.v[i]);
  }
  return total(sums);
}

int64_t items(const AddNormArgs& args) {
  return ceil_div(static_cast<int64_t>(args.x.images) * args.x.rows, kRowsPerItem);
}

// One row of sums, for when nobody wants residual_out.
size_t scratch(const AddNormArgs& args) {
  return static_cast<size_t>(round_up(static_cast<int64_t>(args.x.channels) * 4, kBufferAlignment));
}

void run(const AddNormArgs& args, Span span, void* scratch_memory) {
  const int channels = args.x.channels;
  const float count = static_cast<float>(channels);
  const int64_t all = static_cast<int64_t>(args.x.images) * args.x.rows;
  const int64_t end = span.end * kRowsPerItem < all ? span.end * kRowsPerItem : all;
  for (int64_t i = span.begin * kRowsPerItem; i < end; ++i) {
    const int64_t image = i / args.x.rows, row = i % args.x.rows;
    const float* x = args.x.row(image, row);
    const float* residual = args.residual.empty() ? nullptr : args.residual.row(image, row);
    const float* s = x;
    if (!args.residual_out.empty() || residual != nullptr) {
      float* to = args.residual_out.empty() ? static_cast<float*>(scratch_memory) : args.residual_out.row(image, row);
      add_row(x, residual, to, channels);
      s = to;
    }
    const vf center = args.layer_norm ? set1(sum(s, channels) / count) : zero();
    const vf rscale = set1(1.0f / sqrtf(sum_squares(s, channels, center) / count + args.epsilon));

    float* y = args.y.empty() ? nullptr : args.y.row(image, row);
    CodeRow codes = {};
    if (!args.out.q.empty()) codes = code_row(args.out, image, row);
    for (int k = 0; k < channels; k += vf::W) {
      const int left = channels - k;
      vf v = ((load_up_to(s + k, left) - center) * rscale) * load_up_to(args.weight + k, left);
      if (args.bias != nullptr) v = v + load_up_to(args.bias + k, left);
      if (y != nullptr) store_up_to(y + k, v, left);
      if (codes.q != nullptr) store_codes(codes, k, v, left);
    }
  }
}

}  // namespace

OpEntry<AddNormArgs> add_norm_entry() { return {items, scratch, run}; }

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
