// The reference table: every op in plain scalar loops, sums and transcendental functions in double, each output rounded
// once to float32. It is the specification that all instruction sets are tested against (mathematics:
// lib/program/ir.ts). Compiled once, with PTQ4VM_ISA=reference and without instruction-set flags. Speed does not matter
// here, being obviously right does.
#pragma once
#include <cmath>

#include "entries.h"
#include "ptq4vm/arith.h"

namespace ptq4vm {
namespace cpu {
namespace reference {

template <class Args>
size_t no_scratch(const Args&) {
  return 0;
}

// Packed weights of the reference: this header, then the logical [out, in] matrix as it came.
struct PackedHeader {
  int32_t out, in;
};
template <class T>
const T* packed_weights(const void* packed) {
  return reinterpret_cast<const T*>(static_cast<const PackedHeader*>(packed) + 1);
}

inline double silu(double v) { return v / (1.0 + std::exp(-v)); }

// One value on its way out: the float result and, where wanted, its code (QuantizeOut).
inline void put_code(const QuantizeOut& out, int64_t image, int64_t row, int64_t channel, float value) {
  if (out.q.empty()) return;
  const int64_t step = out.per_token ? row : 0;
  const float smooth = out.smooth_rscale ? out.smooth_rscale[channel] : 1.0f;
  out.q.row(image, row)[channel] =
      static_cast<uint8_t>(arith::quantize_code(value, smooth, out.act_rscale[step], out.act_zero[step], out.qmax));
}

}  // namespace reference
}  // namespace cpu
}  // namespace ptq4vm
