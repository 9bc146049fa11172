// simd.h for AVX-512 (F, BW, VL, DQ): 16 lanes.
#pragma once
// GCC 12 reports its own _mm512_undefined_ps as an uninitialized variable (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

struct vf {
  static constexpr int W = 16;
  __m512 v;
};

struct vi {
  __m512i v;
};

// Mask of the first n lanes, 0 ≤ n ≤ 16.
static inline __mmask16 lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }

static inline vf zero() { return {_mm512_setzero_ps()}; }
static inline vf set1(float x) { return {_mm512_set1_ps(x)}; }
static inline vf load(const float* p) { return {_mm512_loadu_ps(p)}; }
static inline vf load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(lanes(n), p)}; }
static inline void store(float* p, vf a) { _mm512_storeu_ps(p, a.v); }
static inline void store_n(float* p, vf a, int n) { _mm512_mask_storeu_ps(p, lanes(n), a.v); }

static inline vf operator+(vf a, vf b) { return {_mm512_add_ps(a.v, b.v)}; }
static inline vf operator-(vf a, vf b) { return {_mm512_sub_ps(a.v, b.v)}; }
static inline vf operator*(vf a, vf b) { return {_mm512_mul_ps(a.v, b.v)}; }
static inline vf operator/(vf a, vf b) { return {_mm512_div_ps(a.v, b.v)}; }
static inline vf fma(vf a, vf b, vf c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
static inline vf fnma(vf a, vf b, vf c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }

static inline vf min(vf a, vf b) { return {_mm512_min_ps(a.v, b.v)}; }
static inline vf max(vf a, vf b) { return {_mm512_max_ps(a.v, b.v)}; }
static inline vf rint(vf a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
static inline vf abs(vf a) { return {_mm512_abs_ps(a.v)}; }
static inline vf sqrt(vf a) { return {_mm512_sqrt_ps(a.v)}; }
static inline vf clamp(vf x, vf lo, vf hi) { return min(max(x, lo), hi); }
static inline vf select_gt(vf a, vf b, vf x, vf y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ), y.v, x.v)};
}

static inline vi to_int(vf a) { return {_mm512_cvtps_epi32(a.v)}; }
static inline vf to_float(vi a) { return {_mm512_cvtepi32_ps(a.v)}; }
static inline vi set1_i(int32_t x) { return {_mm512_set1_epi32(x)}; }
static inline vi load_i(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
static inline void store_i(int32_t* p, vi a) { _mm512_storeu_si512(p, a.v); }
static inline vi operator+(vi a, vi b) { return {_mm512_add_epi32(a.v, b.v)}; }
static inline vi operator-(vi a, vi b) { return {_mm512_sub_epi32(a.v, b.v)}; }
static inline vi operator*(vi a, vi b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
static inline vi operator&(vi a, vi b) { return {_mm512_and_si512(a.v, b.v)}; }
template <int n>
static inline vi shl(vi a) {
  return {_mm512_slli_epi32(a.v, n)};
}
template <int n>
static inline vi sar(vi a) {
  return {_mm512_srai_epi32(a.v, n)};
}
static inline vi bits_of(vf a) { return {_mm512_castps_si512(a.v)}; }
static inline vf from_bits(vi a) { return {_mm512_castsi512_ps(a.v)}; }

static inline vf scale2(vf x, vf e) { return {_mm512_scalef_ps(x.v, e.v)}; }

static inline void store_u8(uint8_t* p, vi a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
static inline void store_u8_n(uint8_t* p, vi a, int n) { _mm512_mask_cvtepi32_storeu_epi8(p, lanes(n), a.v); }

// Halves are combined first, then quarters, …: lane i with lane i + 8, i + 4, i + 2, i + 1.
static inline float reduce_add(vf a) {
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}
static inline float reduce_max(vf a) {
  const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  const __m128 d = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(d, _mm_shuffle_ps(d, d, 1)));
}
static inline float reduce_min(vf a) {
  const __m256 h = _mm256_min_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 q = _mm_min_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  const __m128 d = _mm_min_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_min_ss(d, _mm_shuffle_ps(d, d, 1)));
}

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
