// The op table: every op as plain arguments, and what a backend provides for each.
//
// The mathematics of an op is stated at its type in lib/program/ir.ts (one place); here are the
// layouts. A backend fills an OpTable; the engine cuts an op into `items` independent work items
// and calls `run` on ranges of them, from one or several threads, each with its own scratch memory.
#pragma once
#include "ptq4vm/view.h"

namespace ptq4vm {

template <class Args>
struct OpEntry {
  // Number of independent work items; a function of shapes alone.
  int64_t (*items)(const Args&);
  // Bytes of scratch that one thread needs (kBufferAlignment-aligned; content is undefined at entry).
  size_t (*scratch)(const Args&);
  // Computes items [span.begin, span.end). Items may be computed in any order and grouping with equal results.
  void (*run)(const Args&, Span span, void* scratch);
};

// Optional quantized output of a producer. q.data == nullptr: none.
struct QuantizeOut {
  View<uint8_t> q;             // codes; row stride a multiple of kCodeRowAlignment
  const float* smooth_rscale;  // [channels], nullptr = 1
  const float* act_rscale;     // [rows] (per token, memory row order) or [1]
  const int32_t* act_zero;     // as act_rscale, values 0…qmax
  int32_t per_token;           // 1: one step per row, 0: one for the tensor
  int32_t qmax;
};

struct PatchEmbedArgs {
  View<const float> x;  // [images, C, height·width]
  View<float> y;        // [images, grid_h·grid_w, dim]
  const void* weight;   // packed by pack_linear: [dim, C·patch·patch]
  const float* bias;    // [dim] or nullptr
  int32_t height, width, patch, stride, grid_h, grid_w;
};

struct AssembleTokensArgs {
  View<const float> x;
  View<float> y;
  const int32_t* source;  // [y.rows]; ≥ 0: row of x, otherwise class token −1 − source
  const float* cls;       // [·, channels] or nullptr
  const float* pos;       // [y.rows, channels] or nullptr
};

struct RopeArgs {
  View<const float> x;
  View<float> y;
  const float* cos;  // [·, channels]
  const float* sin;
  int32_t first_token;
};

struct AddNormArgs {
  View<const float> x;
  View<const float> residual;  // empty: none
  View<float> residual_out;    // empty: not wanted
  View<float> y;               // empty: not wanted
  QuantizeOut out;
  const float* weight;  // [channels]
  const float* bias;    // [channels] or nullptr
  float epsilon;
  int32_t layer_norm;  // 0 RMSNorm, 1 LayerNorm
};

struct LinearArgs {
  View<const float> x;  // K = x.channels
  View<float> y;        // N = y.channels
  const void* weight;   // packed by pack_linear: [N, K]
  const float* bias;    // [N] or nullptr
};

struct LinearI8Args {
  View<const uint8_t> x;  // K = x.channels; each row readable up to the next multiple of kCodeRowAlignment
  View<float> y;
  const void* weight;         // packed by pack_linear_i8: [N, K]
  const int32_t* col_sum;     // [N] Σ_k weight
  const float* weight_scale;  // [N]
  const float* act_scale;     // [rows] or [1]
  const int32_t* act_zero;    // [rows] or [1]
  const float* bias;          // [N] or nullptr
  int32_t per_token;
};

struct QuantizeArgs {
  View<const float> x;
  QuantizeOut out;
};

struct FakeQuantizeArgs {
  View<const float> x;
  View<float> y;
  const float* smooth;     // [channels], nullptr = 1
  const float* act_scale;  // [rows] or [1]
  const int32_t* act_zero;
  int32_t per_token;
  int32_t qmax;
};

struct ConvSiluArgs {
  View<const float> x;
  View<float> y;  // empty: not wanted
  QuantizeOut out;
  const float* weight;   // [width, channels]: tap-major, transposed by the engine so that channels are contiguous
  const float* bias;     // [channels] or nullptr
  const int32_t* table;  // memory row per scan position, [rows]; nullptr = identity
  int32_t width;         // 1…8
};

constexpr int kMaxDirections = 4;

struct ScanDirection {
  View<const float> u, delta;  // [images, rows, d_inner]; delta before softplus, bias added
  View<const float> b, c;      // [images, rows, d_state]
  const float* a;              // [d_state, d_inner]: −exp(A_log), state-major, transposed by the engine
  const float* d;              // [d_inner]
  const int32_t* table;        // memory row per scan position, [rows]; nullptr = identity
};

struct SelectiveScanArgs {
  ScanDirection directions[kMaxDirections];
  int32_t direction_count;
  int32_t d_state;
  View<const float> z;  // empty: no gate
  View<float> y;        // empty: not wanted
  QuantizeOut out;
  float out_scale;
};

struct SelectTokensArgs {
  View<const float> x;
  View<float> y;
  const int32_t* indices;  // [y.rows]
};

struct MeanTokensArgs {
  View<const float> x;
  View<float> y;
};

// Calibration (golden README D.3, D.4). calibration.h beside this file has the candidate formulas and the host side of
// the search over a whole tensor. A value that is NaN or infinite (after x/smooth, weight·smooth) makes the result that
// depends on it NaN, so that the caller can name the layer.
struct AbsMaxArgs {
  View<const float> x;
  float* absmax;  // [channels]
};

// One step and zero point per row (token position), over images × channels. For one step per tensor see tensor_steps().
struct ActivationStepsArgs {
  View<const float> x;
  const float* smooth;  // [channels] divides x; nullptr = 1
  int32_t bits;         // 2…8
  int32_t grid;         // 1: L2.4 grid search, 0: plain min/max extended to zero
  float* scale;         // [rows]; NaN: the row holds a value that is not finite (zero and grid_index are then 0)
  uint8_t* zero;        // [rows]
  uint8_t* grid_index;  // [rows] 1…100, 0 = no search
  const volatile int32_t* cancelled;  // nullptr or nonzero when the caller gave up
};

// Smallest and largest x/smooth of each slice of a tensor (slices: calibration.h).
struct TensorRangeArgs {
  View<const float> x;
  const float* smooth;  // as above
  float* range;         // [slices, 2] min, max; NaN, NaN where a value of the slice is not finite
  const volatile int32_t* cancelled;
};

// Σ |x/smooth − quantized|^2.4 of chosen grid candidates over chosen slices of a tensor, one step for the tensor.
struct TensorScoresArgs {
  View<const float> x;
  const float* smooth;
  int32_t bits;
  float x_min, x_max;         // of x/smooth over the whole tensor
  const int32_t* slices;      // [slice_count] slice numbers
  int32_t slice_count;        // = number of items
  const uint8_t* candidates;  // [candidate_count] grid indices 1…100
  int32_t candidate_count;
  double* sums;  // [slice_count, candidate_count], in units that are the same for every slice and candidate of a tensor
  const volatile int32_t* cancelled;
};

struct WeightStepsArgs {
  const float* weight;  // [out, in]
  const float* smooth;  // [in] multiplies; nullptr = 1
  int32_t out, in, bits, grid;
  float* scale;         // [out]; NaN as above
  uint8_t* grid_index;  // [out] 1…100, 0 = no search
  const volatile int32_t* cancelled;
};

// Packs logical [out, in] weights into the layout that a backend's GEMM reads. Loaded once.
template <class T>
struct Packer {
  size_t (*bytes)(int32_t out, int32_t in);
  void (*pack)(const T* weight, int32_t out, int32_t in, void* packed);
};

struct OpTable {
  const char* name;  // instruction set, e.g. "avx512"

  Packer<float> pack_linear;
  Packer<int8_t> pack_linear_i8;

  OpEntry<PatchEmbedArgs> patch_embed;
  OpEntry<AssembleTokensArgs> assemble_tokens;
  OpEntry<RopeArgs> rope;
  OpEntry<AddNormArgs> add_norm;
  OpEntry<LinearArgs> linear;
  OpEntry<LinearI8Args> linear_i8;
  OpEntry<QuantizeArgs> quantize;
  OpEntry<FakeQuantizeArgs> fake_quantize;
  OpEntry<ConvSiluArgs> conv_silu;
  OpEntry<SelectiveScanArgs> selective_scan;
  OpEntry<SelectTokensArgs> select_tokens;
  OpEntry<MeanTokensArgs> mean_tokens;

  OpEntry<AbsMaxArgs> abs_max;
  OpEntry<ActivationStepsArgs> activation_steps;
  OpEntry<TensorRangeArgs> tensor_range;
  OpEntry<TensorScoresArgs> tensor_scores;
  OpEntry<WeightStepsArgs> weight_steps;
};

}  // namespace ptq4vm
