// Calibration arithmetic that backends share, and the search for one step per tensor.
//
// Formulas: golden README D.3 and D.4 (= ptq4vm/quantizer.py of the official code), in its float32 operations and their
// order, so that a step found here has the same bits. We differ in one place: the official search starts from a best
// score of 1e10 and so never accepts a candidate above it; ours starts from infinity.
#pragma once
#include <cmath>

#include "ptq4vm/ops.h"

namespace ptq4vm {
namespace calibration {

constexpr int kCandidates = 100;   // grid of the official code
constexpr float kMinStep = 1e-8f;  // smallest step

struct Range {
  float lo, hi;
};

// Asymmetric quantizer that a candidate tries: real = step·(code − zero), codes 0…qmax, zero any integer.
struct Candidate {
  float step, zero;
};

PTQ4VM_HD static inline float at_least(float x, float floor) { return x > floor ? x : floor; }

// The range that candidate i = 1…100 tries: both ends moved inwards by the fraction i/100 (inverted above 50).
PTQ4VM_HD static inline Range candidate_range(float x_min, float x_max, int i) {
  const double fraction = i / 100.0;
  const float a = static_cast<float>(fraction);
  const float b = static_cast<float>(1.0 - fraction);
  return {x_min * b + x_max * a, x_min * a + x_max * b};
}

PTQ4VM_HD static inline Candidate candidate_quantizer(Range range, int32_t qmax) {
  const float step = at_least((range.hi - range.lo) / static_cast<float>(qmax), kMinStep);
  return {step, rintf(-range.lo / step)};
}

// What is stored for a searched range: the range extended to zero. Step NaN (zero 0) when it is not finite.
PTQ4VM_HD static inline Candidate final_quantizer(Range range, int32_t qmax) {
  const float lo = range.lo < 0.0f ? range.lo : 0.0f;
  const float hi = range.hi > 0.0f ? range.hi : 0.0f;
  const float step = at_least((hi - lo) / static_cast<float>(qmax), kMinStep);
  if (!(step <= 3.402823466e38f)) return {NAN, 0.0f};
  const float zero = 0.0f - rintf(lo / step);
  return {step, zero < static_cast<float>(qmax) ? zero : static_cast<float>(qmax)};
}

// Symmetric step of weights that candidate i = 1…100 tries, for a row whose largest |weight·smooth| is absmax.
PTQ4VM_HD static inline float weight_candidate(float absmax, int i, int32_t qmax) {
  return at_least(absmax / 100.0f * static_cast<float>(i) / static_cast<float>(qmax), kMinStep);
}

// A tensor's lines (one row of one image, line = image·rows + row) are cut into slices of lines_per_slice lines, the
// last one shorter: a function of the shape alone, about 64 K values each.
static inline int64_t lines_per_slice(const View<const float>& x) {
  const int64_t lines = (int64_t{1} << 16) / (x.channels > 0 ? x.channels : 1);
  return lines > 0 ? lines : 1;
}
static inline int64_t slice_count(const View<const float>& x) {
  return ceil_div(static_cast<int64_t>(x.images) * x.rows, lines_per_slice(x));
}

// Bytes of workspace (aligned as kBufferAlignment) for tensor_steps.
static inline size_t tensor_steps_workspace(const View<const float>& x) {
  const size_t slices = static_cast<size_t>(slice_count(x));
  return slices * (kCandidates * sizeof(double) + 2 * sizeof(float) + sizeof(int32_t));
}

// Where the search over one tensor stands: per candidate i = 1…100 its sum so far and whether it can still win.
struct TensorSearch {
  double sum[kCandidates + 1];
  bool active[kCandidates + 1];
};

// One activation step for a whole tensor: `scale`, `zero` and `grid_index` get one value each, of the same meaning as
// in ActivationStepsArgs. Returns false when cancelled; the results are then undefined.
//
// `run(entry, args)` must execute all items of an OpEntry, on as many threads as the caller likes, and return when they
// are done (a generic lambda: `[&](const auto& entry, const auto& args) { … }`).
//
// Exact search with few evaluations: scores are sums of non-negative terms, so a candidate whose partial sum exceeds a
// finished score has lost. Every 16th slice is scored for all candidates, the leader of that probe is finished first,
// and the others run through the remaining slices in rounds that drop the losers. Sums are added in an order that only
// the shape fixes.
template <class Run>
bool tensor_steps(const OpTable& table, const View<const float>& x, const float* smooth, int32_t bits, int32_t grid,
                  void* workspace, const volatile int32_t* cancelled, float* scale, uint8_t* zero, uint8_t* grid_index,
                  Run&& run) {
  constexpr int64_t kProbeStride = 16;
  constexpr int kRounds = 16;
  const int32_t qmax = (1 << bits) - 1;
  const int64_t count = slice_count(x);
  double* sums = static_cast<double*>(workspace);
  float* ranges = reinterpret_cast<float*>(sums + count * kCandidates);
  int32_t* slices = reinterpret_cast<int32_t*>(ranges + 2 * count);
  const auto stopped = [&] { return cancelled != nullptr && *cancelled != 0; };
  const auto finish = [&](Range range, int index) {
    const Candidate found = final_quantizer(range, qmax);
    *scale = found.step;
    *zero = static_cast<uint8_t>(found.zero);
    *grid_index = static_cast<uint8_t>(index);
    return true;
  };

  run(table.tensor_range, TensorRangeArgs{x, smooth, ranges, cancelled});
  if (stopped()) return false;
  Range whole = {INFINITY, -INFINITY};
  for (int64_t s = 0; s < count; ++s) {
    const float lo = ranges[2 * s], hi = ranges[2 * s + 1];
    if (!(lo <= hi)) return finish({NAN, INFINITY}, 0);  // NaN: a value is not finite
    whole.lo = lo < whole.lo ? lo : whole.lo;
    whole.hi = hi > whole.hi ? hi : whole.hi;
  }
  if (!grid) return finish(whole, 0);

  TensorSearch search;
  for (int i = 0; i <= kCandidates; ++i) {
    search.sum[i] = 0.0;
    search.active[i] = i > 0;
  }
  // Adds the probe slices, or the others, of [begin, end) to the sums of the active candidates (only ≠ 0: of that one).
  const auto add_slices = [&](int64_t begin, int64_t end, bool probe, int only) {
    uint8_t candidates[kCandidates];
    int32_t n = 0, m = 0;
    for (int64_t s = begin; s < end; ++s) {
      if ((s % kProbeStride == 0) == probe) slices[n++] = static_cast<int32_t>(s);
    }
    for (int i = 1; i <= kCandidates; ++i) {
      if (only ? i == only : search.active[i]) candidates[m++] = static_cast<uint8_t>(i);
    }
    if (n == 0 || m == 0) return;
    run(table.tensor_scores,
        TensorScoresArgs{x, smooth, bits, whole.lo, whole.hi, slices, n, candidates, m, sums, cancelled});
    for (int64_t s = 0; s < n; ++s) {
      for (int64_t k = 0; k < m; ++k) search.sum[candidates[k]] += sums[s * m + k];
    }
  };

  add_slices(0, count, true, 0);
  int best = 0;
  double best_sum = INFINITY;
  for (int i = 1; i <= kCandidates; ++i) {
    if (search.sum[i] < best_sum) best_sum = search.sum[i], best = i;
  }
  if (stopped()) return false;
  if (best == 0) return finish(whole, 0);  // every score overflowed

  add_slices(0, count, false, best);
  best_sum = search.sum[best];
  search.active[best] = false;
  for (int r = 0; r < kRounds && !stopped(); ++r) {
    for (int i = 1; i <= kCandidates; ++i) {
      if (!(search.sum[i] <= best_sum)) search.active[i] = false;
    }
    add_slices(count * r / kRounds, count * (r + 1) / kRounds, false, 0);
  }
  if (stopped()) return false;
  for (int i = 1; i <= kCandidates; ++i) {
    const double sum = search.sum[i];
    if (search.active[i] && (sum < best_sum || (sum == best_sum && i < best))) best_sum = sum, best = i;
  }
  return finish(candidate_range(whole.lo, whole.hi, best), best);
}

}  // namespace calibration
}  // namespace ptq4vm
