// AVX2 without VNNI: vpmaddwd, pairs of s16 products added in s32.
//
// vpmaddubsw would take u8·s8 directly, but its sum of two products saturates at 32,767 (255·127·2 = 64,770), so both
// sides are widened to 16 bits: codes once per chunk, into scratch; weights in the loop, where one vpmovsxbw serves all
// rows of the tile. A vector of weights holds 8 channels × 2 k; two codes of a row are broadcast. 6 × 2 vectors: 12
// sums, 2 of W, 1 of x, 1 product.
#pragma once
#include <immintrin.h>

#include <cstring>

#include "gemm/zero_x86.h"
#include "simd/simd.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

struct I8Dot {
  static constexpr int kRows = 6, kVectors = 2, kDepth = 2, kInterleave = 2;
  using Code = int16_t;
  using Weight = int8_t;
#if defined(__GNUC__)
  typedef int Sum __attribute__((vector_size(32)));  // not __m256i: see i8_avx512.h
#else
  using Sum = __m256i;
#endif

  // depth may be any number; writes round_up(depth, kDepth) codes.
  static inline void widen(const uint8_t* x, int64_t depth, int16_t* codes) {
    int64_t k = 0;
    for (; k + 16 <= depth; k += 16) {
      const __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + k)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + k), v);
    }
    for (; k < depth; ++k) codes[k] = x[k];
    if (depth % 2 != 0) codes[depth] = 0;
  }

  static inline int32_t start(int32_t col_sum) { return zero_start(col_sum); }
  static inline int32_t row_word(int32_t zero) { return zero_row_word(zero); }
  static inline int32_t column_word(int32_t col_sum) { return zero_column_word(col_sum); }
  static inline vi finish(vi acc, vi row, vi column) {
    return vi{_mm256_add_epi32(acc.v, _mm256_madd_epi16(row.v, column.v))};
  }

  template <int MR, int NV>
  static inline void accumulate(vi (&acc)[MR][NV], const int32_t* first, const int16_t* const* rows, int64_t depth,
                                const int8_t* w) {
    Sum sum[MR][NV];
    const int16_t* x[MR];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      x[i] = rows[i];
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) sum[i][j] = (Sum)_mm256_load_si256(reinterpret_cast<const __m256i*>(first + j * 8));
    }
    int64_t k = 0;
    do {  // depth ≥ 1; with a loop that may run no times GCC 12 stores every sum in every step
      __m256i wk[NV];
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) {
        wk[j] = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + j * 16)));
      }
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        int32_t pair;
        memcpy(&pair, x[i] + k, 4);
        const __m256i xk = _mm256_set1_epi32(pair);
#pragma GCC unroll 16
        for (int j = 0; j < NV; ++j)
          sum[i][j] = (Sum)_mm256_add_epi32((__m256i)sum[i][j], _mm256_madd_epi16(xk, wk[j]));
      }
      k += 2;
      w += NV * 16;
    } while (k < depth);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] = vi{(__m256i)sum[i][j]};
    }
  }
};

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
