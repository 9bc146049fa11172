// NEON with the dot-product extension: each s32 lane adds four products of bytes.
//
// A vector of weights holds 4 channels × 4 k; four codes of a row of x are one lane of a 16-byte load, so K is walked
// in steps of 16. With i8mm (Armv8.6) sudot multiplies s8 weights by u8 codes. Without it sdot needs codes that are
// signed: q − 128 (q xor 0x80), and the sums start at 128·Σw.
#pragma once
#include <arm_neon.h>

#include "simd/simd.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

struct I8Dot {
  static constexpr int kRows = 4, kVectors = 4, kDepth = 16, kInterleave = 4;
  using Code = uint8_t;
  using Weight = int8_t;
#if defined(__ARM_FEATURE_MATMUL_INT8)
  static constexpr int32_t kOffset = 0;  // Σ (q − kOffset)·w is what the products give
  using Codes = uint8x16_t;
  static inline Codes load_codes(const uint8_t* x) { return vld1q_u8(x); }
  template <int kLane>
  static inline int32x4_t dot(int32x4_t sum, int8x16_t w, Codes x) {
    return vsudotq_laneq_s32(sum, w, x, kLane);
  }
#else
  static constexpr int32_t kOffset = 128;
  using Codes = int8x16_t;
  static inline Codes load_codes(const uint8_t* x) {
    return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(x), vdupq_n_u8(0x80)));
  }
  template <int kLane>
  static inline int32x4_t dot(int32x4_t sum, int8x16_t w, Codes x) {
    return vdotq_laneq_s32(sum, w, x, kLane);
  }
#endif

  static inline int32_t start(int32_t col_sum) { return kOffset * col_sum; }
  static inline int32_t row_word(int32_t zero) { return zero; }
  static inline int32_t column_word(int32_t col_sum) { return col_sum; }
  static inline vi finish(vi acc, vi row, vi column) { return vi{vmlsq_s32(acc.v, row.v, column.v)}; }

  template <int kLane, int MR, int NV>
  static inline void step(int32x4_t (&sum)[MR][NV], const Codes (&x)[MR], const int8_t* w) {
#if defined(__GNUC__)
    // Else GCC loads the weights of all four steps at once and spills sums.
    __asm__ volatile("" : : : "memory");
#endif
    int8x16_t wk[NV];
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) wk[j] = vld1q_s8(w + (kLane * NV + j) * 16);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) sum[i][j] = dot<kLane>(sum[i][j], wk[j], x[i]);
    }
  }

  template <int MR, int NV>
  static inline void accumulate(vi (&acc)[MR][NV], const int32_t* first, const uint8_t* const* rows, int64_t depth,
                                const int8_t* w) {
    int32x4_t sum[MR][NV];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) sum[i][j] = vld1q_s32(first + j * 4);
    }
    int64_t k = 0;
    do {
      Codes x[MR];
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) x[i] = load_codes(rows[i] + k);
      step<0>(sum, x, w);
      step<1>(sum, x, w);
      step<2>(sum, x, w);
      step<3>(sum, x, w);
      k += 16;
      w += NV * 64;
    } while (k < depth);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] = vi{sum[i][j]};
    }
  }
};

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
