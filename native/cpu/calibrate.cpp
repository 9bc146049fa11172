// Calibration: channel maxima, activation steps and weight steps (golden README D.3, D.4; PTQ4VM, arXiv 2412.20386,
// §5).
//
// Ranges, steps, zero points and residues are the official float32 operations in their order; only the powers 2.4 and
// their sums differ, by about 1e-6 relative. So a step is bit-equal to the official one unless two candidates score the
// same within that. Items are independent and their arithmetic depends on shapes alone, never on threads.
#include "calibrate/row.h"
#include "entries.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {
namespace {

size_t floats(int64_t n) { return static_cast<size_t>(n) * sizeof(float); }

// --- abs_max. Item: a group of channels, over all images and rows; a few registers hold its maxima.

constexpr int64_t kChannelGroup = 64;

int64_t abs_max_items(const AbsMaxArgs& a) { return ceil_div(a.x.channels, kChannelGroup); }
size_t abs_max_scratch(const AbsMaxArgs&) { return 0; }

template <int registers>
void abs_max_group(const View<const float>& x, int64_t from, float* absmax) {
  constexpr int W = vf::W;
  vf largest[registers], bad[registers];
  for (int r = 0; r < registers; ++r) largest[r] = bad[r] = zero();
  for (int64_t image = 0; image < x.images; ++image) {
    for (int64_t row = 0; row < x.rows; ++row) {
      const float* p = x.row(image, row) + from;
      for (int r = 0; r < registers; ++r) {
        const vf v = load(p + r * W);
        largest[r] = max(abs(v), largest[r]);
        bad[r] = fma(v, zero(), bad[r]);  // NaN from then on, if v is not finite
      }
    }
  }
  for (int r = 0; r < registers; ++r) store(absmax + from + r * W, largest[r] + bad[r]);
}

void abs_max_channel(const View<const float>& x, int64_t k, float* absmax) {
  float largest = 0.0f, bad = 0.0f;
  for (int64_t image = 0; image < x.images; ++image) {
    for (int64_t row = 0; row < x.rows; ++row) {
      const float v = x.row(image, row)[k];
      if (fabsf(v) > largest) largest = fabsf(v);
      bad += v * 0.0f;
    }
  }
  absmax[k] = largest + bad;
}

void abs_max(const AbsMaxArgs& a, Span span, void*) {
  constexpr int kRegisters = kChannelGroup / vf::W;
  for (int64_t item = span.begin; item < span.end; ++item) {
    int64_t k = item * kChannelGroup;
    const int64_t end = k + kChannelGroup < a.x.channels ? k + kChannelGroup : a.x.channels;
    if (end - k == kChannelGroup) {
      abs_max_group<kRegisters>(a.x, k, a.absmax);
      continue;
    }
    for (; k + vf::W <= end; k += vf::W) abs_max_group<1>(a.x, k, a.absmax);
    for (; k < end; ++k) abs_max_channel(a.x, k, a.absmax);
  }
}

// --- activation_steps. Item: one row (token position), over all images and channels.

int64_t activation_steps_items(const ActivationStepsArgs& a) { return a.x.rows; }
size_t activation_steps_scratch(const ActivationStepsArgs& a) {
  return floats(static_cast<int64_t>(a.x.images) * a.x.channels);
}

// Candidate i of an asymmetric search over values that were multiplied by `power`.
ScaledQuantizer activation_candidate(float x_min, float x_max, int i, int32_t qmax, float power) {
  const calibration::Candidate c =
      calibration::candidate_quantizer(calibration::candidate_range(x_min, x_max, i), qmax);
  return scaled_quantizer(c.step, c.zero, 0.0f, static_cast<float>(qmax), power);
}

float largest_magnitude(float lo, float hi) { return -lo > hi ? -lo : hi; }

void activation_steps(const ActivationStepsArgs& a, Span span, void* scratch) {
  float* values = static_cast<float*>(scratch);
  const int64_t n = static_cast<int64_t>(a.x.images) * a.x.channels;
  const int32_t qmax = (1 << a.bits) - 1;
  for (int64_t row = span.begin; row < span.end && !stopped(a.cancelled); ++row) {
    Extent seen = Extent::none();
    for (int64_t image = 0; image < a.x.images; ++image) {
      seen = gather<divided>(a.x.row(image, row), a.smooth, a.x.channels, values + image * a.x.channels, seen);
    }
    const RowRange range = range_of(seen);
    if (!range.finite) {
      a.scale[row] = NAN;
      a.zero[row] = a.grid_index[row] = 0;
      continue;
    }

    int best = 0;
    if (a.grid) {
      const float power = normalizer(largest_magnitude(range.lo, range.hi));
      scale_values(values, n, power);
      best = search_row(values, n, a.cancelled,
                        [&](int i) { return activation_candidate(range.lo, range.hi, i, qmax, power); });
      if (best == kSearchCancelled) return;
    }
    const calibration::Range kept =
        best ? calibration::candidate_range(range.lo, range.hi, best) : calibration::Range{range.lo, range.hi};
    const calibration::Candidate found = calibration::final_quantizer(kept, qmax);
    a.scale[row] = found.step;
    a.zero[row] = static_cast<uint8_t>(found.zero);
    a.grid_index[row] = static_cast<uint8_t>(best);
  }
}

// --- One step per tensor, in slices (the search itself: calibration.h).

int64_t slice_begin(const View<const float>& x, int64_t slice) { return slice * calibration::lines_per_slice(x); }
int64_t slice_end(const View<const float>& x, int64_t slice) {
  const int64_t lines = static_cast<int64_t>(x.images) * x.rows, end = slice_begin(x, slice + 1);
  return end < lines ? end : lines;
}

// Item: one slice. Scratch: one line.
int64_t tensor_range_items(const TensorRangeArgs& a) { return calibration::slice_count(a.x); }
size_t tensor_range_scratch(const TensorRangeArgs& a) { return floats(a.x.channels); }

void tensor_range(const TensorRangeArgs& a, Span span, void* scratch) {
  float* line_values = static_cast<float*>(scratch);
  for (int64_t slice = span.begin; slice < span.end && !stopped(a.cancelled); ++slice) {
    Extent seen = Extent::none();
    for (int64_t line = slice_begin(a.x, slice); line < slice_end(a.x, slice); ++line) {
      seen = gather<divided>(a.x.row(line / a.x.rows, line % a.x.rows), a.smooth, a.x.channels, line_values, seen);
    }
    const RowRange range = range_of(seen);
    a.range[2 * slice] = range.finite ? range.lo : NAN;
    a.range[2 * slice + 1] = range.finite ? range.hi : NAN;
  }
}

// Item: one of the chosen slices. Scratch: its values.
int64_t tensor_scores_items(const TensorScoresArgs& a) { return a.slice_count; }
size_t tensor_scores_scratch(const TensorScoresArgs& a) {
  return floats(calibration::lines_per_slice(a.x) * a.x.channels);
}

void tensor_scores(const TensorScoresArgs& a, Span span, void* scratch) {
  float* values = static_cast<float*>(scratch);
  const int32_t qmax = (1 << a.bits) - 1;
  const float power = normalizer(largest_magnitude(a.x_min, a.x_max));
  for (int64_t item = span.begin; item < span.end; ++item) {
    int64_t n = 0;
    for (int64_t line = slice_begin(a.x, a.slices[item]); line < slice_end(a.x, a.slices[item]); ++line) {
      const float* x = a.x.row(line / a.x.rows, line % a.x.rows);
      gather<divided>(x, a.smooth, a.x.channels, values + n, Extent::none());
      n += a.x.channels;
    }
    scale_values(values, n, power);
    for (int64_t c = 0; c < a.candidate_count; ++c) {
      if (stopped(a.cancelled)) return;
      const ScaledQuantizer q = activation_candidate(a.x_min, a.x_max, a.candidates[c], qmax, power);
      double sum = 0.0;
      for (int64_t begin = 0; begin < n; begin += kScoreBlock) {
        sum += score_values(values, begin, begin + kScoreBlock < n ? begin + kScoreBlock : n, q);
      }
      a.sums[item * a.candidate_count + c] = sum;
    }
  }
}

// --- weight_steps. Item: one output channel.

int64_t weight_steps_items(const WeightStepsArgs& a) { return a.out; }
size_t weight_steps_scratch(const WeightStepsArgs& a) { return floats(a.in); }

void weight_steps(const WeightStepsArgs& a, Span span, void* scratch) {
  float* values = static_cast<float*>(scratch);
  const int32_t qmax = (1 << (a.bits - 1)) - 1;
  const float bound = static_cast<float>(qmax);
  for (int64_t o = span.begin; o < span.end && !stopped(a.cancelled); ++o) {
    const RowRange range = range_of(gather<multiplied>(a.weight + o * a.in, a.smooth, a.in, values, Extent::none()));
    const float absmax = largest_magnitude(range.lo, range.hi);
    int best = 0;
    if (range.finite && a.grid) {
      const float power = normalizer(absmax);
      scale_values(values, a.in, power);
      best = search_row(values, a.in, a.cancelled, [&](int i) {
        return scaled_quantizer(calibration::weight_candidate(absmax, i, qmax), 0.0f, -bound, bound, power);
      });
      if (best == kSearchCancelled) return;
    }
    a.scale[o] = !range.finite ? NAN
                 : best        ? calibration::weight_candidate(absmax, best, qmax)
                               : calibration::at_least(absmax / bound, calibration::kMinStep);
    a.grid_index[o] = static_cast<uint8_t>(best);
  }
}

}  // namespace

OpEntry<AbsMaxArgs> abs_max_entry() { return {abs_max_items, abs_max_scratch, abs_max}; }
OpEntry<ActivationStepsArgs> activation_steps_entry() {
  return {activation_steps_items, activation_steps_scratch, activation_steps};
}
OpEntry<TensorRangeArgs> tensor_range_entry() { return {tensor_range_items, tensor_range_scratch, tensor_range}; }
OpEntry<TensorScoresArgs> tensor_scores_entry() { return {tensor_scores_items, tensor_scores_scratch, tensor_scores}; }
OpEntry<WeightStepsArgs> weight_steps_entry() { return {weight_steps_items, weight_steps_scratch, weight_steps}; }

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
