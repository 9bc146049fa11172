// The arithmetic that every backend must agree on, written once for host and device.
//
// Everything is IEEE float32 without contraction (host: -ffp-contract=off, device: --fmad=false);
// where a fused multiply-add is meant, it is written fmaf. Internal linkage: these functions are
// compiled under different instruction-set flags, and the linker must never mix the copies.
#pragma once
#include <cmath>

#include "ptq4vm/view.h"

namespace ptq4vm {
namespace arith {

PTQ4VM_HD static inline float clampf(float x, float lo, float hi) {
  // Written so that a NaN ends at lo on every backend (an unordered comparison is false).
  const float a = x > lo ? x : lo;
  return a < hi ? a : hi;
}

// Activation code as kernels compute it (ARCHITECTURE "Mathematics", reciprocals): x·smooth_rscale·act_rscale, clamped to
// [−zero, qmax − zero], rounded half to even, shifted by the zero point. Result in 0…qmax.
PTQ4VM_HD static inline int32_t quantize_code(float x, float smooth_rscale, float act_rscale, int32_t zero, int32_t qmax) {
  const float v = (x * smooth_rscale) * act_rscale;
  return static_cast<int32_t>(rintf(clampf(v, static_cast<float>(-zero), static_cast<float>(qmax - zero)))) + zero;
}

// What the activation quantizer keeps of x, by the definition (ARCHITECTURE "Mathematics", division):
// c = clamp(x/smooth/scale + zero, 0, qmax); rint(c − zero)·scale.
PTQ4VM_HD static inline float fake_quantize(float x, float smooth, float scale, float zero, float qmax) {
  const float c = clampf(x / smooth / scale + zero, 0.0f, qmax);
  return rintf(c - zero) * scale;
}

// Weight code by the definition: rint(clamp(w·smooth/scale, −qmax, qmax)).
PTQ4VM_HD static inline float weight_code(float w, float smooth, float scale, float qmax) {
  return rintf(clampf(w * smooth / scale, -qmax, qmax));
}

// Dequantization of an exact integer sum: act_scale·weight_scale·(acc − zero·col_sum) + bias.
// The difference is exact in int32 for every K up to 65,536 (255·127·K and 255·127·K both fit).
PTQ4VM_HD static inline float dequantize(int32_t acc, int32_t zero, int32_t col_sum, float act_scale, float weight_scale,
                                         float bias) {
  return (act_scale * weight_scale) * static_cast<float>(acc - zero * col_sum) + bias;
}

// softplus of the reference: log1p(exp(v)) up to 20, v above.
PTQ4VM_HD static inline float softplus(float v) { return v > 20.0f ? v : log1pf(expf(v)); }

PTQ4VM_HD static inline float silu(float v) { return v / (1.0f + expf(-v)); }

}  // namespace arith
}  // namespace ptq4vm
