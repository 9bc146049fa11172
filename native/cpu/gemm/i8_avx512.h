// AVX-512 with VNNI: vpdpbusd adds four u8·s8 products to each s32 lane, without saturation.
//
// A vector of weights holds 16 channels × 4 k; four codes of a row of x are broadcast to all lanes. 8 × 3 vectors: 24
// sums, 3 of W, 1 of x in 32 registers, and 11 loads for 24 products, which two load ports sustain.
#pragma once
#include <immintrin.h>

#include <cstring>

#include "gemm/zero_x86.h"
#include "simd/simd.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

struct I8Dot {
  static constexpr int kRows = 8, kVectors = 3, kDepth = 4, kInterleave = 4;
  using Code = uint8_t;
  using Weight = int8_t;
#if defined(__GNUC__)
  // Not __m512i: its lanes are 64-bit, and GCC 12 copies and spills every sum on the way to the 32-bit product and
  // back.
  typedef int Sum __attribute__((vector_size(64)));
#else
  using Sum = __m512i;
#endif

  static inline int32_t start(int32_t col_sum) { return zero_start(col_sum); }
  static inline int32_t row_word(int32_t zero) { return zero_row_word(zero); }
  static inline int32_t column_word(int32_t col_sum) { return zero_column_word(col_sum); }
  static inline vi finish(vi acc, vi row, vi column) { return vi{_mm512_dpwssd_epi32(acc.v, row.v, column.v)}; }

  template <int MR, int NV>
  static inline void accumulate(vi (&acc)[MR][NV], const int32_t* first, const uint8_t* const* rows, int64_t depth,
                                const int8_t* w) {
    Sum sum[MR][NV];
    const uint8_t* x[MR];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      x[i] = rows[i];
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) sum[i][j] = (Sum)_mm512_load_si512(first + j * 16);
    }
    for (int64_t k = 0; k < depth; k += 4, w += NV * 64) {
      __m512i wk[NV];
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) wk[j] = _mm512_loadu_si512(w + j * 64);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        int32_t four;
        memcpy(&four, x[i] + k, 4);
        const __m512i xk = _mm512_set1_epi32(four);
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j) sum[i][j] = (Sum)_mm512_dpbusd_epi32((__m512i)sum[i][j], xk, wk[j]);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] = vi{(__m512i)sum[i][j]};
    }
  }
};

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
