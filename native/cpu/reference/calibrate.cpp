// Reference: calibration (golden README D.3, D.4 = ptq4vm/quantizer.py of the official code). Ranges, steps and zero
// points are float32 in the official order of operations; scores are summed in double. Every candidate is scored in
// full.
#include "ptq4vm/calibration.h"
#include "reference/reference.h"

namespace ptq4vm {
namespace cpu {
namespace reference {
namespace {

constexpr int kGrid = 100;
constexpr float kEpsilon = 1e-8f;

bool stopped(const volatile int32_t* cancelled) { return cancelled != nullptr && *cancelled != 0; }

// Item: one channel.
void abs_max(const AbsMaxArgs& a, Span span, void*) {
  for (int64_t k = span.begin; k < span.end; ++k) {
    float largest = 0.0f;
    for (int64_t image = 0; image < a.x.images; ++image) {
      for (int64_t row = 0; row < a.x.rows; ++row) {
        const float x = std::fabs(a.x.row(image, row)[k]);
        if (!std::isfinite(x)) largest = NAN;
        if (x > largest) largest = x;  // never true once largest is NaN
      }
    }
    a.absmax[k] = largest;
  }
}

float smoothed(const View<const float>& x, const float* smooth, int64_t image, int64_t row, int64_t k) {
  return smooth ? x.row(image, row)[k] / smooth[k] : x.row(image, row)[k];
}

// |x − step·(clamp(rint(x/step) + zero, low, high) − zero)|^2.4
double error_term(float x, float step, float zero, float low, float high) {
  const float code = arith::clampf(rintf(x / step) + zero, low, high);
  const float kept = step * (code - zero);
  return std::pow(std::fabs(static_cast<double>(x - kept)), 2.4);
}

// The range that candidate i tries, and its quantizer.
struct Trial {
  float lo, hi, step, zero;
};
Trial trial(float x_min, float x_max, int i, int qmax) {
  const double a = i / 100.0;
  const float inner = static_cast<float>(a), outer = static_cast<float>(1.0 - a);
  Trial t;
  t.lo = x_min * outer + x_max * inner;
  t.hi = x_min * inner + x_max * outer;
  t.step = std::fmax((t.hi - t.lo) / qmax, kEpsilon);
  t.zero = rintf(-t.lo / t.step);
  return t;
}

// Item: one row of the tensor (a token position), over all images and channels.
void activation_steps(const ActivationStepsArgs& a, Span span, void*) {
  const int qmax = (1 << a.bits) - 1;
  for (int64_t row = span.begin; row < span.end; ++row) {
    float x_min = INFINITY, x_max = -INFINITY;
    bool finite = true;
    for (int64_t image = 0; image < a.x.images; ++image) {
      for (int64_t k = 0; k < a.x.channels; ++k) {
        const float x = smoothed(a.x, a.smooth, image, row, k);
        finite = finite && std::isfinite(x);
        x_min = std::fmin(x_min, x);
        x_max = std::fmax(x_max, x);
      }
    }

    float best_lo = x_min, best_hi = x_max;
    int best = 0;
    double best_score = INFINITY;
    for (int i = 1; finite && a.grid && i <= kGrid; ++i) {
      if (stopped(a.cancelled)) return;
      const Trial t = trial(x_min, x_max, i, qmax);
      double score = 0.0;
      for (int64_t image = 0; image < a.x.images; ++image) {
        for (int64_t k = 0; k < a.x.channels; ++k) {
          score += error_term(smoothed(a.x, a.smooth, image, row, k), t.step, t.zero, 0, qmax);
        }
      }
      if (score < best_score) best_score = score, best = i, best_lo = t.lo, best_hi = t.hi;
    }

    // The stored step covers the range found, extended to zero.
    const float lo = std::fmin(best_lo, 0.0f), hi = std::fmax(best_hi, 0.0f);
    const float step = std::fmax((hi - lo) / qmax, kEpsilon);
    finite = finite && std::isfinite(step);
    a.scale[row] = finite ? step : NAN;
    a.zero[row] = static_cast<uint8_t>(finite ? arith::clampf(0.0f - rintf(lo / step), 0, qmax) : 0.0f);
    a.grid_index[row] = static_cast<uint8_t>(best);
  }
}

// Calls visit(x/smooth) for every value of a slice of the tensor.
template <class Visit>
void visit_slice(const View<const float>& x, const float* smooth, int64_t slice, Visit visit) {
  const int64_t lines = static_cast<int64_t>(x.images) * x.rows;
  const int64_t begin = slice * calibration::lines_per_slice(x);
  for (int64_t line = begin; line < lines && line < begin + calibration::lines_per_slice(x); ++line) {
    for (int64_t k = 0; k < x.channels; ++k) visit(smoothed(x, smooth, line / x.rows, line % x.rows, k));
  }
}

// Item: one slice.
void tensor_range(const TensorRangeArgs& a, Span span, void*) {
  for (int64_t slice = span.begin; slice < span.end && !stopped(a.cancelled); ++slice) {
    float x_min = INFINITY, x_max = -INFINITY;
    bool finite = true;
    visit_slice(a.x, a.smooth, slice, [&](float x) {
      finite = finite && std::isfinite(x);
      x_min = std::fmin(x_min, x);
      x_max = std::fmax(x_max, x);
    });
    a.range[2 * slice] = finite ? x_min : NAN;
    a.range[2 * slice + 1] = finite ? x_max : NAN;
  }
}

// Item: one of the chosen slices, for all chosen candidates.
void tensor_scores(const TensorScoresArgs& a, Span span, void*) {
  const int qmax = (1 << a.bits) - 1;
  for (int64_t item = span.begin; item < span.end && !stopped(a.cancelled); ++item) {
    for (int64_t c = 0; c < a.candidate_count; ++c) {
      const Trial t = trial(a.x_min, a.x_max, a.candidates[c], qmax);
      double sum = 0.0;
      visit_slice(a.x, a.smooth, a.slices[item], [&](float x) { sum += error_term(x, t.step, t.zero, 0, qmax); });
      a.sums[item * a.candidate_count + c] = sum;
    }
  }
}

// Item: one output channel.
void weight_steps(const WeightStepsArgs& a, Span span, void*) {
  const float qmax = static_cast<float>((1 << (a.bits - 1)) - 1);
  for (int64_t o = span.begin; o < span.end; ++o) {
    const auto weight = [&](int64_t k) {
      const float w = a.weight[o * a.in + k];
      return a.smooth ? w * a.smooth[k] : w;
    };
    float absmax = 0.0f;
    for (int64_t k = 0; k < a.in; ++k) {
      if (!std::isfinite(weight(k))) absmax = NAN;
      if (std::fabs(weight(k)) > absmax) absmax = std::fabs(weight(k));
    }

    float best_step = std::fmax(absmax / qmax, kEpsilon);
    int best = 0;
    double best_score = INFINITY;
    for (int i = 1; std::isfinite(absmax) && a.grid && i <= kGrid; ++i) {
      if (stopped(a.cancelled)) return;
      const float step = std::fmax(absmax / 100.0f * static_cast<float>(i) / qmax, kEpsilon);
      double score = 0.0;
      for (int64_t k = 0; k < a.in; ++k) score += error_term(weight(k), step, 0.0f, -qmax, qmax);
      if (score < best_score) best_score = score, best = i, best_step = step;
    }
    a.scale[o] = std::isfinite(absmax) ? best_step : NAN;
    a.grid_index[o] = static_cast<uint8_t>(best);
  }
}

int64_t channels(const AbsMaxArgs& a) { return a.x.channels; }
int64_t rows(const ActivationStepsArgs& a) { return a.x.rows; }
int64_t all_slices(const TensorRangeArgs& a) { return calibration::slice_count(a.x); }
int64_t chosen_slices(const TensorScoresArgs& a) { return a.slice_count; }
int64_t output_channels(const WeightStepsArgs& a) { return a.out; }

}  // namespace

OpEntry<AbsMaxArgs> abs_max_entry() { return {channels, no_scratch<AbsMaxArgs>, abs_max}; }
OpEntry<ActivationStepsArgs> activation_steps_entry() {
  return {rows, no_scratch<ActivationStepsArgs>, activation_steps};
}
OpEntry<TensorRangeArgs> tensor_range_entry() { return {all_slices, no_scratch<TensorRangeArgs>, tensor_range}; }
OpEntry<TensorScoresArgs> tensor_scores_entry() { return {chosen_slices, no_scratch<TensorScoresArgs>, tensor_scores}; }
OpEntry<WeightStepsArgs> weight_steps_entry() { return {output_channels, no_scratch<WeightStepsArgs>, weight_steps}; }

}  // namespace reference
}  // namespace cpu
}  // namespace ptq4vm
