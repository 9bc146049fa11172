// The int8 register tile: exact sums of u8 codes times s8 weights, dequantized before they leave the registers.
//
// What differs between instruction sets is a struct `I8Dot`, one per file i8_<isa>.h, with
//   kRows, kVectors      register tile: kRows rows of x times kVectors vectors of W = vf::W columns
//   kDepth               K is padded to a multiple of this; the packed weights are zero there
//   kInterleave          neighbouring k of one channel that lie together in the packed weights (gemm/pack.h); 0 = all
//   Code                 how a row of x is read. uint8_t: in place, round_up(K, kDepth) bytes, of which those beyond K
//                        are arbitrary. int16_t: widened by widen(), once per chunk, into scratch
//   Weight               int8_t, or int16_t where widening in the loop would cost more than the bytes
//   start(col_sum)       where the sum of a column begins
//   accumulate<MR, NV>(acc, start, x, depth, w): acc[i][j] = start[j·W …] + Σ_k x[i][k]·w[k][j·W …] in s32
//   row_word(zero), column_word(col_sum), finish(acc, row, column): with them, acc becomes Σ q·w − zero·col_sum
// Everything else, below and in gemm_i8.cpp, is common. An instruction set with registers of another kind (AMX
// tiles) brings its own packing parameters and its own tile function and keeps plan, rows and I8Columns.
//
// Exactness: |Σ (q − zero)·w| ≤ 255·127·K fits s32 for K ≤ 65,536; on the way sums may wrap, and integer sums have no
// order. The epilogue is arith::dequantize, operation by operation, so results are equal bit for bit on every
// instruction set.
#pragma once
#include "gemm/pack.h"
#include "gemm/plan.h"
#include "simd/simd.h"

#if defined(PTQ4VM_ISA_AVX512)
#include "gemm/i8_avx512.h"
#elif defined(PTQ4VM_ISA_AVX2)
#include "gemm/i8_avx2.h"
#elif defined(PTQ4VM_ISA_NEON) && defined(__ARM_FEATURE_DOTPROD)
#include "gemm/i8_neon.h"
#else
#include "gemm/i8_portable.h"
#endif

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

constexpr int kI8Columns = I8Dot::kVectors * vf::W;
static_assert(kMaxChunkRows % I8Dot::kRows == 0, "I8Rows has no room for a chunk rounded up");
static_assert(kCodeRowAlignment % I8Dot::kDepth == 0, "rows are readable to that alignment only");

// What the epilogue needs of the columns of a panel, padded to whole vectors.
struct I8Columns {
  alignas(64) int32_t start[kI8Columns];  // I8Dot::start
  alignas(64) int32_t word[kI8Columns];   // I8Dot::column_word
  alignas(64) float weight_scale[kI8Columns];
  alignas(64) float bias[kI8Columns];
};

// The rows of a chunk: their codes as accumulate reads them, channel 0 of y, and what the epilogue needs.
struct I8Rows {
  const I8Dot::Code* x[kMaxChunkRows];
  float* y[kMaxChunkRows];
  float act_scale[kMaxChunkRows];
  int32_t word[kMaxChunkRows];  // I8Dot::row_word of the zero point
};

struct I8Block {
  const I8Rows* rows;
  int64_t row;                  // the block's first
  const I8Dot::Weight* weight;  // the panel
  const I8Columns* columns;
  int64_t depth;   // padded K
  int64_t column;  // the panel's first
  int32_t count;   // columns to be stored: (vectors − 1)·W < count ≤ vectors·W
};

template <int MR, int NV>
static void i8_block(const I8Block& b) {
  constexpr int W = vf::W;
  vi acc[MR][NV];
  I8Dot::accumulate<MR, NV>(acc, b.columns->start, b.rows->x + b.row, b.depth, b.weight);
  const int tail = b.count - (NV - 1) * W;
  float* const* y = b.rows->y + b.row;
  const float* act_scale = b.rows->act_scale + b.row;
  const int32_t* row_word = b.rows->word + b.row;
#pragma GCC unroll 16
  for (int j = 0; j < NV; ++j) {
    const vi word = load_i(b.columns->word + j * W);
    const vf weight_scale = load(b.columns->weight_scale + j * W);
    const vf bias = load(b.columns->bias + j * W);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const vi sum = I8Dot::finish(acc[i][j], set1_i(row_word[i]), word);
      const vf value = (set1(act_scale[i]) * weight_scale) * to_float(sum) + bias;
      if (j < NV - 1 || tail == W) {
        store(y[i] + b.column + j * W, value);
      } else {
        store_n(y[i] + b.column + j * W, value, tail);
      }
    }
  }
}

using I8Kernel = void (*)(const I8Block&);

// The tile of that many rows (1…kRows) and vectors (1…kVectors). A pointer, not a call: inlined into one function, the
// tiles would compete for registers with each other's constants.
template <int MR = I8Dot::kRows>
static inline I8Kernel i8_kernel(int64_t rows, int vectors) {
  if constexpr (MR > 1) {
    if (rows < MR) return i8_kernel<MR - 1>(rows, vectors);
  }
  if constexpr (I8Dot::kVectors > 3) {
    if (vectors == 4) return i8_block<MR, 4>;
  }
  if constexpr (I8Dot::kVectors > 2) {
    if (vectors == 3) return i8_block<MR, 3>;
  }
  if constexpr (I8Dot::kVectors > 1) {
    if (vectors == 2) return i8_block<MR, 2>;
  }
  return i8_block<MR, 1>;
}
static_assert(I8Dot::kVectors <= 4, "i8_kernel lists the widths");

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
