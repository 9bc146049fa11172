// simd.h for AArch64 NEON: 4 lanes.
//
// NEON's own minimum and maximum spread NaN; min, max and clamp are compare-and-select here so that a
// NaN goes where simd.h says.
#pragma once
#include <arm_neon.h>

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

struct vf {
  static constexpr int W = 4;
  float32x4_t v;
};

struct vi {
  int32x4_t v;
};

static inline vf zero() { return {vdupq_n_f32(0.0f)}; }
static inline vf set1(float x) { return {vdupq_n_f32(x)}; }
static inline vf load(const float* p) { return {vld1q_f32(p)}; }
static inline vf load_n(const float* p, int n) {
  float lane[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  for (int i = 0; i < n; ++i) lane[i] = p[i];
  return {vld1q_f32(lane)};
}
static inline void store(float* p, vf a) { vst1q_f32(p, a.v); }
static inline void store_n(float* p, vf a, int n) {
  float lane[4];
  vst1q_f32(lane, a.v);
  for (int i = 0; i < n; ++i) p[i] = lane[i];
}

static inline vf operator+(vf a, vf b) { return {vaddq_f32(a.v, b.v)}; }
static inline vf operator-(vf a, vf b) { return {vsubq_f32(a.v, b.v)}; }
static inline vf operator*(vf a, vf b) { return {vmulq_f32(a.v, b.v)}; }
static inline vf operator/(vf a, vf b) { return {vdivq_f32(a.v, b.v)}; }
static inline vf fma(vf a, vf b, vf c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
static inline vf fnma(vf a, vf b, vf c) { return {vfmsq_f32(c.v, a.v, b.v)}; }

static inline vf select_gt(vf a, vf b, vf x, vf y) { return {vbslq_f32(vcgtq_f32(a.v, b.v), x.v, y.v)}; }
static inline vf min(vf a, vf b) { return select_gt(b, a, a, b); }
static inline vf max(vf a, vf b) { return select_gt(a, b, a, b); }
static inline vf rint(vf a) { return {vrndnq_f32(a.v)}; }
static inline vf abs(vf a) { return {vabsq_f32(a.v)}; }
static inline vf sqrt(vf a) { return {vsqrtq_f32(a.v)}; }
static inline vf clamp(vf x, vf lo, vf hi) { return min(max(x, lo), hi); }

static inline vi to_int(vf a) { return {vcvtnq_s32_f32(a.v)}; }
static inline vf to_float(vi a) { return {vcvtq_f32_s32(a.v)}; }
static inline vi set1_i(int32_t x) { return {vdupq_n_s32(x)}; }
static inline vi load_i(const int32_t* p) { return {vld1q_s32(p)}; }
static inline void store_i(int32_t* p, vi a) { vst1q_s32(p, a.v); }
static inline vi operator+(vi a, vi b) { return {vaddq_s32(a.v, b.v)}; }
static inline vi operator-(vi a, vi b) { return {vsubq_s32(a.v, b.v)}; }
static inline vi operator*(vi a, vi b) { return {vmulq_s32(a.v, b.v)}; }
static inline vi operator&(vi a, vi b) { return {vandq_s32(a.v, b.v)}; }
template <int n>
static inline vi shl(vi a) {
  return {vshlq_n_s32(a.v, n)};
}
template <int n>
static inline vi sar(vi a) {
  return {vshrq_n_s32(a.v, n)};
}
static inline vi bits_of(vf a) { return {vreinterpretq_s32_f32(a.v)}; }
static inline vf from_bits(vi a) { return {vreinterpretq_f32_s32(a.v)}; }

// 2^e is built from its bits; exponent field 0 (e = −127) is the number 0.
static inline vf scale2(vf x, vf e) {
  const int32x4_t n = vcvtnq_s32_f32(max(e, set1(-127.0f)).v);
  const int32x4_t power = vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23);
  return {vmulq_f32(x.v, vreinterpretq_f32_s32(power))};
}

static inline void store_u8_n(uint8_t* p, vi a, int n) {
  int32_t lane[4];
  vst1q_s32(lane, a.v);
  for (int i = 0; i < n; ++i) p[i] = static_cast<uint8_t>(lane[i]);
}
static inline void store_u8(uint8_t* p, vi a) {
  const uint16x4_t h = vreinterpret_u16_s16(vmovn_s32(a.v));
  const uint32x2_t codes = vreinterpret_u32_u8(vmovn_u16(vcombine_u16(h, h)));
  const uint32_t four = vget_lane_u32(codes, 0);
  __builtin_memcpy(p, &four, sizeof four);
}

// Halves are combined first: lane i with lane i + 2, then i + 1.
static inline float reduce_add(vf a) {
  const float32x2_t h = vadd_f32(vget_low_f32(a.v), vget_high_f32(a.v));
  return vget_lane_f32(h, 0) + vget_lane_f32(h, 1);
}
static inline float reduce_max(vf a) { return vmaxvq_f32(a.v); }
static inline float reduce_min(vf a) { return vminvq_f32(a.v); }

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
