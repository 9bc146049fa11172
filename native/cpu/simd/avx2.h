// simd.h for AVX2 with FMA: 8 lanes.
#pragma once
#include <immintrin.h>

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

struct vf {
  static constexpr int W = 8;
  __m256 v;
};

struct vi {
  __m256i v;
};

// Mask of the first n lanes, 0 ≤ n ≤ 8.
static inline __m256i lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vf zero() { return {_mm256_setzero_ps()}; }
static inline vf set1(float x) { return {_mm256_set1_ps(x)}; }
static inline vf load(const float* p) { return {_mm256_loadu_ps(p)}; }
static inline vf load_n(const float* p, int n) { return {_mm256_maskload_ps(p, lanes(n))}; }
static inline void store(float* p, vf a) { _mm256_storeu_ps(p, a.v); }
static inline void store_n(float* p, vf a, int n) { _mm256_maskstore_ps(p, lanes(n), a.v); }

static inline vf operator+(vf a, vf b) { return {_mm256_add_ps(a.v, b.v)}; }
static inline vf operator-(vf a, vf b) { return {_mm256_sub_ps(a.v, b.v)}; }
static inline vf operator*(vf a, vf b) { return {_mm256_mul_ps(a.v, b.v)}; }
static inline vf operator/(vf a, vf b) { return {_mm256_div_ps(a.v, b.v)}; }
static inline vf fma(vf a, vf b, vf c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
static inline vf fnma(vf a, vf b, vf c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }

static inline vf min(vf a, vf b) { return {_mm256_min_ps(a.v, b.v)}; }
static inline vf max(vf a, vf b) { return {_mm256_max_ps(a.v, b.v)}; }
static inline vf rint(vf a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
static inline vf abs(vf a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
static inline vf sqrt(vf a) { return {_mm256_sqrt_ps(a.v)}; }
static inline vf clamp(vf x, vf lo, vf hi) { return min(max(x, lo), hi); }
static inline vf select_gt(vf a, vf b, vf x, vf y) {
  return {_mm256_blendv_ps(y.v, x.v, _mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ))};
}

static inline vi to_int(vf a) { return {_mm256_cvtps_epi32(a.v)}; }
static inline vf to_float(vi a) { return {_mm256_cvtepi32_ps(a.v)}; }
static inline vi set1_i(int32_t x) { return {_mm256_set1_epi32(x)}; }
static inline vi load_i(const int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
static inline void store_i(int32_t* p, vi a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
static inline vi operator+(vi a, vi b) { return {_mm256_add_epi32(a.v, b.v)}; }
static inline vi operator-(vi a, vi b) { return {_mm256_sub_epi32(a.v, b.v)}; }
static inline vi operator*(vi a, vi b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
static inline vi operator&(vi a, vi b) { return {_mm256_and_si256(a.v, b.v)}; }
template <int n>
static inline vi shl(vi a) {
  return {_mm256_slli_epi32(a.v, n)};
}
template <int n>
static inline vi sar(vi a) {
  return {_mm256_srai_epi32(a.v, n)};
}
static inline vi bits_of(vf a) { return {_mm256_castps_si256(a.v)}; }
static inline vf from_bits(vi a) { return {_mm256_castsi256_ps(a.v)}; }

// 2^e is built from its bits; exponent field 0 (e = −127) is the number 0. max's operand order sends a
// NaN exponent to −127 too: a NaN x still gives NaN.
static inline vf scale2(vf x, vf e) {
  const __m256i n = _mm256_cvtps_epi32(_mm256_max_ps(e.v, _mm256_set1_ps(-127.0f)));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23);
  return {_mm256_mul_ps(x.v, _mm256_castsi256_ps(power))};
}

// The eight codes in the low half, two at a time through the saturating packs (lanes are in 0…255).
static inline __m128i pack_u8(vi a) {
  const __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(a.v), _mm256_extracti128_si256(a.v, 1));
  return _mm_packus_epi16(w, w);
}
static inline void store_u8(uint8_t* p, vi a) { _mm_storel_epi64(reinterpret_cast<__m128i*>(p), pack_u8(a)); }
static inline void store_u8_n(uint8_t* p, vi a, int n) {
  uint8_t lane[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(lane), pack_u8(a));
  for (int i = 0; i < n; ++i) p[i] = lane[i];
}

// Halves are combined first, then quarters, …: lane i with lane i + 4, i + 2, i + 1.
static inline float reduce_add(vf a) {
  const __m128 q = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}
static inline float reduce_max(vf a) {
  const __m128 q = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 d = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(d, _mm_shuffle_ps(d, d, 1)));
}
static inline float reduce_min(vf a) {
  const __m128 q = _mm_min_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  const __m128 d = _mm_min_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_min_ss(d, _mm_shuffle_ps(d, d, 1)));
}

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
