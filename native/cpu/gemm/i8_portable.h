// Plain C++: dot products of 16-bit integers along K.
//
// Both sides are stored as s16, each channel's K contiguous, because Σ short·short in int is the one integer product
// that compilers vectorize well for a baseline processor (SSE2: pmaddwd; NEON: smlal). Two rows times four channels
// share their loads: eight sums in one loop.
#pragma once
#include "simd/simd.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

struct I8Dot {
  static constexpr int kRows = 4, kVectors = 8 / vf::W > 0 ? 8 / vf::W : 1, kDepth = 16, kInterleave = 0;
  using Code = int16_t;
  using Weight = int16_t;
  static_assert(kVectors * vf::W % 4 == 0, "channels are taken four at a time");

  static inline int32_t start(int32_t) { return 0; }
  static inline int32_t row_word(int32_t zero) { return zero; }
  static inline int32_t column_word(int32_t col_sum) { return col_sum; }
  static inline vi finish(vi acc, vi row, vi column) { return acc - row * column; }

  static inline void widen(const uint8_t* x, int64_t depth, int16_t* codes) {
    int64_t k = 0;
    for (; k < depth; ++k) codes[k] = x[k];
    for (; k % kDepth != 0; ++k) codes[k] = 0;
  }

  // MR is 1 or 2. sum: [MR][4] of stride `stride`.
  template <int MR>
  static void dot4(const int16_t* x0, const int16_t* x1, int64_t depth, const int16_t* w, int32_t* sum, int stride) {
    const int16_t *w0 = w, *w1 = w + depth, *w2 = w + 2 * depth, *w3 = w + 3 * depth;
    int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
    const int64_t blocks = depth / kDepth;
    for (int64_t k = 0; k < blocks * kDepth; ++k) {
      a0 += x0[k] * w0[k];
      a1 += x0[k] * w1[k];
      a2 += x0[k] * w2[k];
      a3 += x0[k] * w3[k];
      if (MR == 2) {
        b0 += x1[k] * w0[k];
        b1 += x1[k] * w1[k];
        b2 += x1[k] * w2[k];
        b3 += x1[k] * w3[k];
      }
    }
    sum[0] = a0, sum[1] = a1, sum[2] = a2, sum[3] = a3;
    if (MR == 2) sum[stride] = b0, sum[stride + 1] = b1, sum[stride + 2] = b2, sum[stride + 3] = b3;
  }

  template <int MR, int NV>
  static inline void accumulate(vi (&acc)[MR][NV], const int32_t*, const int16_t* const* x, int64_t depth,
                                const int16_t* w) {
    constexpr int NR = NV * vf::W;
    alignas(64) int32_t sum[MR][NR];
    for (int j = 0; j < NR; j += 4) {
      int i = 0;
      for (; i + 2 <= MR; i += 2) dot4<2>(x[i], x[i + 1], depth, w + j * depth, &sum[i][j], NR);
      for (; i < MR; ++i) dot4<1>(x[i], x[i], depth, w + j * depth, &sum[i][j], NR);
    }
    for (int i = 0; i < MR; ++i) {
      for (int j = 0; j < NV; ++j) acc[i][j] = load_i(&sum[i][j * vf::W]);
    }
  }
};

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
