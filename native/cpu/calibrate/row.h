// A row of values brought together, and the search for its best candidate.
#pragma once
#include <cstring>

#include "calibrate/score.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

// Smallest and largest of some values, and whether all are finite.
struct Extent {
  vf lo, hi, bad;  // bad is 0 in every lane, or NaN

  static Extent none() { return {set1(3.402823466e38f), set1(-3.402823466e38f), zero()}; }
};

struct RowRange {
  float lo, hi;
  bool finite;
};

static inline RowRange range_of(const Extent& e) {
  return {reduce_min(e.lo), reduce_max(e.hi), reduce_add(e.bad) == 0.0f};
}

static inline Extent extend(const Extent& e, vf v) { return {min(v, e.lo), max(v, e.hi), fma(v, zero(), e.bad)}; }

static inline vf divided(vf x, vf by) { return x / by; }
static inline vf multiplied(vf x, vf by) { return x * by; }

// out[k] = op(x[k], by[k]) (by absent: x[k]) for k < n; returns `seen` extended by these values.
template <vf op(vf, vf)>
static inline Extent gather(const float* x, const float* by, int64_t n, float* out, Extent seen) {
  constexpr int W = vf::W;
  int64_t k = 0;
  for (; k + W <= n; k += W) {
    const vf v = by ? op(load(x + k), load(by + k)) : load(x + k);
    store(out + k, v);
    seen = extend(seen, v);
  }
  for (; k < n; ++k) {
    const vf v = by ? op(set1(x[k]), set1(by[k])) : set1(x[k]);
    store_n(out + k, v, 1);
    seen = extend(seen, v);
  }
  return seen;
}

// A power of two that brings values up to `magnitude` near 1 and leaves room: every quantizer step (≥ 1e-8) times it is
// a normal number, so scaled arithmetic has the same codes and the powers 2.4 neither overflow nor vanish.
static inline float normalizer(float magnitude) {
  uint32_t bits;
  memcpy(&bits, &magnitude, sizeof bits);
  int exponent = static_cast<int>(bits >> 23 & 0xff) - 127;
  exponent = exponent < -90 ? -90 : exponent > 99 ? 99 : exponent;
  bits = static_cast<uint32_t>(127 - exponent) << 23;
  float power;
  memcpy(&power, &bits, sizeof power);
  return power;
}

static inline void scale_values(float* x, int64_t n, float by) {
  const vf factor = set1(by);
  int64_t k = 0;
  for (; k + vf::W <= n; k += vf::W) store(x + k, load(x + k) * factor);
  for (; k < n; ++k) x[k] *= by;
}

static inline bool stopped(const volatile int32_t* cancelled) { return cancelled != nullptr && *cancelled != 0; }

constexpr int kSearchCancelled = -1;

// The candidate 1…100 with the smallest score over x[0…n), the first of equals; 0 when no score is a number.
// `quantizer(i)` gives candidate i as a ScaledQuantizer for these values.
//
// Exact, with a fraction of the evaluations: scores are sums of non-negative terms, so a candidate whose partial sum
// exceeds a finished score has lost. Every 16th block is scored for all candidates, the leader of that probe is
// finished first, then its neighbours outwards, which are the likely rivals.
template <class Quantizer>
static inline int search_row(const float* x, int64_t n, const volatile int32_t* cancelled, Quantizer quantizer) {
  constexpr int64_t kProbeStride = 16;
  constexpr int kCandidates = calibration::kCandidates;
  const int64_t blocks = ceil_div(n, kScoreBlock);
  const auto score = [&](const ScaledQuantizer& q, int64_t block) {
    const int64_t begin = block * kScoreBlock;
    return score_values(x, begin, begin + kScoreBlock < n ? begin + kScoreBlock : n, q);
  };

  double partial[kCandidates + 1];
  int best = 0;
  double best_score = INFINITY;
  for (int i = 1; i <= kCandidates; ++i) {
    if (stopped(cancelled)) return kSearchCancelled;
    const ScaledQuantizer q = quantizer(i);
    partial[i] = 0.0;
    for (int64_t b = 0; b < blocks; b += kProbeStride) partial[i] += score(q, b);
    if (partial[i] < best_score) best_score = partial[i], best = i;
  }
  if (best == 0 || blocks == 1) return best;

  // The full score of candidate i, or a partial one that already exceeds `bound`.
  const auto finish = [&](int i, double bound) {
    const ScaledQuantizer q = quantizer(i);
    double sum = partial[i];
    for (int64_t b = 0; b < blocks && !(sum > bound); ++b) {
      if (b % kProbeStride != 0) sum += score(q, b);
    }
    return sum;
  };
  const int leader = best;
  best_score = finish(leader, INFINITY);
  for (int distance = 1; distance < kCandidates; ++distance) {
    if (stopped(cancelled)) return kSearchCancelled;
    for (int side = -1; side <= 1; side += 2) {
      const int i = leader + side * distance;
      if (i < 1 || i > kCandidates) continue;
      const double sum = finish(i, best_score);
      if (sum < best_score || (sum == best_score && i < best)) best_score = sum, best = i;
    }
  }
  return best;
}

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
