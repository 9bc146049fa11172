// Walking along a row in registers: whole or partial loads and stores, and the quantized output of a row.
#pragma once
#include "ptq4vm/ops.h"
#include "simd/simd.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

// `left` elements remain at p; at most W of them are touched. The condition is loop-invariant but for the last turn.
static inline vf load_up_to(const float* p, int left) { return left >= vf::W ? load(p) : load_n(p, left); }
static inline void store_up_to(float* p, vf a, int left) {
  if (left >= vf::W) {
    store(p, a);
  } else {
    store_n(p, a, left);
  }
}

// One row of a QuantizeOut: the step of its token, ready to use.
struct CodeRow {
  uint8_t* q;
  const float* smooth_rscale;
  vf rscale, low, high;
  vi zero;
};

static inline CodeRow code_row(const QuantizeOut& out, int64_t image, int64_t row) {
  const int64_t token = out.per_token ? row : 0;
  const int32_t zero = out.act_zero[token];
  return {out.q.row(image, row),
          out.smooth_rscale,
          set1(out.act_rscale[token]),
          set1(static_cast<float>(-zero)),
          set1(static_cast<float>(out.qmax - zero)),
          set1_i(zero)};
}

// Codes of the values v of channels k…: arith::quantize_code, operation by operation, so that every producer
// and the quantize op give the same codes.
static inline void store_codes(const CodeRow& row, int k, vf v, int left) {
  if (row.smooth_rscale != nullptr) v = v * load_up_to(row.smooth_rscale + k, left);
  const vi code = to_int(clamp(v * row.rscale, row.low, row.high)) + row.zero;
  if (left >= vf::W) {
    store_u8(row.q + k, code);
  } else {
    store_u8_n(row.q + k, code, left);
  }
}

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
