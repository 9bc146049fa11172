// The inner loop of calibration: Σ |x − quantized(x)|^2.4 over a run of values, for one candidate quantizer.
#pragma once
#include "ptq4vm/calibration.h"
#include "simd/simd.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

// Values that one sum in float32 covers; longer sums continue in double.
constexpr int64_t kScoreBlock = 512;

// A candidate on values that were scaled by a power of two (see row.h): code = clamp(rint(x/step) + zero, low, high).
struct ScaledQuantizer {
  float step, rstep;
  float zero, low, high;
  // Follow the definition to the letter: x/step may be so large that rint(x/step) + zero rounds.
  bool literal;
};

static inline ScaledQuantizer scaled_quantizer(float step, float zero, float low, float high, float power) {
  const float scaled = step * power;
  // Otherwise |zero| ≤ 2^22: the sum with an integer below 2^24 is exact and beyond that both forms saturate alike,
  // so clamp(r + zero, low, high) − zero = clamp(r, low − zero, high − zero).
  const bool literal = step <= calibration::kMinStep || !(fabsf(zero) <= 4194304.0f);
  return {scaled, 1.0f / scaled, zero, low, high, literal};
}

// |d|^2.4, relative error below 1e-6 for normal results; 0 at 0, NaN at NaN.
//
// Taking the exponent and mantissa bits of d times −0.4 gives a rough z ≈ |d|^−0.4. How rough it is tells t = d²·z⁵ in
// [0.838, 1.194], and |d|^2.4 = (d·z)⁴·t^−0.8 exactly: the last factor is a polynomial in t − 1.
static inline vf abs_pow_2_4(vf d) {
  const vf bits = to_float(bits_of(d) & set1_i(0x7fffffff));
  const vf z = from_bits(to_int(fma(bits, set1(-0.4f), set1((1.4f * 127.0f - 0.0675f) * 8388608.0f))));
  const vf dz = d * z;    // about |d|^0.6: neither this
  const vf dzz = dz * z;  // nor this, |d|^0.2, leaves the range of float32
  const vf f = fma(dzz * dzz, z, set1(-1.0f));
  vf p = set1(0.561320424079895f);
  p = fma(p, f, set1(-0.6420207619667053f));
  p = fma(p, f, set1(0.6402539014816284f));
  p = fma(p, f, set1(-0.6715766787528992f));
  p = fma(p, f, set1(0.7199806571006775f));
  p = fma(p, f, set1(-0.8000015616416931f));
  p = fma(p, f, set1(1.0f));
  const vf square = dz * dz;
  return square * (square * p);
}

// x/step, correctly rounded but for quotients within 1e-6 of an ulp of the middle between two floats.
static inline vf quotient(vf x, vf step, vf rstep) {
#if defined(PTQ4VM_ISA_PORTABLE)
  (void)rstep;
  return x / step;
#else
  // One correction of x·(1/step) by its exact remainder (P. Markstein, IBM J. Res. Dev. 34, 1990): cheaper than
  // dividing.
  const vf q = x * rstep;
  return fma(fnma(q, step, x), rstep, q);
#endif
}

struct Scorer {
  vf step, rstep, zero, low, high;
};

// x − what the quantizer keeps of it. Product and difference round separately, as in the official code.
static inline vf residue(vf x, const Scorer& s) {
  return x - s.step * clamp(rint(quotient(x, s.step, s.rstep)), s.low, s.high);
}
static inline vf residue_literal(vf x, const Scorer& s) {
  return x - s.step * (clamp(rint(x / s.step) + s.zero, s.low, s.high) - s.zero);
}

template <bool literal>
static inline float score_block(const float* x, int n, const Scorer& s) {
  constexpr int W = vf::W;
  vf even = zero(), odd = zero();
  int i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    const vf a = load(x + i), b = load(x + i + W);
    even = even + abs_pow_2_4(literal ? residue_literal(a, s) : residue(a, s));
    odd = odd + abs_pow_2_4(literal ? residue_literal(b, s) : residue(b, s));
  }
  for (; i < n; i += W) {
    const int lanes_left = n - i < W ? n - i : W;
    const vf a = lanes_left < W ? load_n(x + i, lanes_left) : load(x + i);
    float d[W];
    store(d, literal ? residue_literal(a, s) : residue(a, s));
    even = even + abs_pow_2_4(lanes_left < W ? load_n(d, lanes_left) : load(d));  // idle lanes count nothing
  }
  return reduce_add(even + odd);
}

// The score of values [begin, end) of x, at most kScoreBlock.
static inline double score_values(const float* x, int64_t begin, int64_t end, const ScaledQuantizer& q) {
  const int n = static_cast<int>(end - begin);
  if (q.literal) {
    const Scorer s = {set1(q.step), set1(q.rstep), set1(q.zero), set1(q.low), set1(q.high)};
    return score_block<true>(x + begin, n, s);
  }
  const Scorer s = {set1(q.step), set1(q.rstep), set1(q.zero), set1(q.low - q.zero), set1(q.high - q.zero)};
  return score_block<false>(x + begin, n, s);
}

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
