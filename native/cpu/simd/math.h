// exp and what is made of it, on registers of floats (simd.h).
//
// The reduction and polynomial of exp follow expf of the Cephes library (S. L. Moshier); the polynomials of
// exp2_decay and softplus are our own minimax fits. Errors below are relative, against double, the largest over all
// instruction sets (native/test/simd_math_test.cpp measures them). NaN in gives NaN out everywhere.
#pragma once
#include "simd/simd.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

constexpr float kLog2E = 1.44269504088896341f;
// ln 2 in two parts: n·kLn2High is exact for every exponent n.
constexpr float kLn2High = 0.693359375f;
constexpr float kLn2Low = -2.12194440e-4f;

// exp(r), |r| ≤ 0.42. Polynomials go by pairs of coefficients where that shortens the chain of dependent operations.
static inline vf exp_near_zero(vf r) {
  const vf square = r * r;
  const vf high = fma(set1(1.9875691500e-4f), r, set1(1.3981999507e-3f));
  const vf middle = fma(set1(8.3334519073e-3f), r, set1(4.1665795894e-2f));
  const vf low = fma(set1(1.6666665459e-1f), r, set1(5.0000001201e-1f));
  return fma(fma(fma(high, square, middle), square, low), square, r) + set1(1.0f);
}

// e^x, error ≤ 2e-7. Below −86.9 the result is 0 (AVX-512: subnormal until it is 0); above 88.72 infinite.
static inline vf exp(vf x) {
  // Operands in the order that lets a NaN through.
  x = min(set1(89.0f), max(set1(-104.0f), x));
  const vf n = rint(x * set1(kLog2E));
  const vf r = fnma(n, set1(kLn2Low), fnma(n, set1(kLn2High), x));
  const vf p = exp_near_zero(r);
  // Twice p and half the power: 2^128 is no float, though p·2^128 may be one when p < 1.
  return scale2(p + p, n - set1(1.0f));
}

// 2^(x·y) for x·y ≤ 0, error ≤ 2.5e-7 beside the rounding of the product; exactly 1 at 0, 0 below −126.
// The factor by which a state decays: written for the fewest operations. The state sums 1/(1 − factor) steps, and
// errors with them, so the fit is most exact near 1, where it counts most.
static inline vf exp2_decay(vf x, vf y) {
#if defined(PTQ4VM_ISA_AVX512)
  const vf t = x * y;
  const vf r = {_mm512_reduce_ps(t.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};  // t − ⌊t⌋
  vf p = set1(0.0019354745745658875f);  // 2^r on [0, 1]; at 1, where t is near 0, value and slope are exact
  p = fma(p, r, set1(0.008861836045980453f));
  p = fma(p, r, set1(0.05591860041022301f));
  p = fma(p, r, set1(0.240129753947258f));
  p = fma(p, r, set1(0.6931543350219727f));
  p = fma(p, r, set1(1.0f));
  return {_mm512_scalef_ps(p.v, t.v)};  // p·2^⌊t⌋
#else
  const vf t = max(set1(-127.0f), x * y);
  // The sum's last bits are those of the integer nearest to t, plus 127: already the exponent field.
  const vf magic = set1(12582912.0f + 127.0f);
  const vf shifted = t + magic;
  const vf r = t - (shifted - magic);
  vf p = set1(0.0013264727206831308f);  // 2^r on [−½, ½]
  p = fma(p, r, set1(0.009671512652634107f));
  p = fma(p, r, set1(0.05550733743347537f));
  p = fma(p, r, set1(0.24022242085176201f));
  p = fma(p, r, set1(0.6931469775990384f));
  p = fma(p, r, set1(1.0f));
  return p * from_bits(shl<23>(bits_of(shifted)));
#endif
}

// ln(1 + e^v), error ≤ 3e-7 down to v = −86.9, 0 (or subnormal, as exp) below. Computed as max(v, 0) + ln(1 + x) with
// x = e^−|v| in [0, 1], where one polynomial x·P(x) serves; above 20 that is v, as the reference wants it.
static inline vf softplus(vf v) {
  const vf x = exp(zero() - abs(v));
  const vf x2 = x * x;
  const vf x4 = x2 * x2;
  const vf p12 = fma(set1(0.33321322631414846f), x, set1(-0.4999964796404702f));
  const vf p34 = fma(set1(0.19153655367351793f), x, set1(-0.2485716377683423f));
  const vf p56 = fma(set1(0.07920454605575977f), x, set1(-0.1375380324215571f));
  const vf p78 = fma(set1(0.005364825888243839f), x, set1(-0.030065798637041296f));
  const vf p = fma(fma(p78, x2, p56), x4, fma(p34, x2, p12));
  // max(0, v) in the order that lets a NaN through.
  return fma(fma(p, x, set1(1.0f)), x, max(zero(), v));
}

// 1 / (1 + e^−v), error ≤ 3e-7 where the result is normal.
static inline vf sigmoid(vf v) { return set1(1.0f) / (set1(1.0f) + exp(zero() - v)); }

// v·sigmoid(v), error as sigmoid. As in arith::silu, −∞ gives NaN.
static inline vf silu(vf v) { return v / (set1(1.0f) + exp(zero() - v)); }

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
