// A register of floats, the same words for every instruction set.
//
// Included by files that are compiled once per instruction set (see cpu/table.h). Kernels are written
// against this interface and are instantiated, not copied. `vf::W` lanes; every function is static
// inline (internal linkage: copies compiled under different flags must never be merged by the linker).
//
//   struct vf { static constexpr int W; … };      // W floats
//   struct vi { … };                              // W int32
//   vf  zero(), set1(float), load(const float*), load_n(const float*, int n)   // n ≤ W lanes, the rest 0, never read
//   void store(float*, vf), store_n(float*, vf, int n)
//   vf  operator+ - * /, fma(a,b,c) = a·b + c (one rounding where the set has FMA), fnma(a,b,c) = c − a·b
//   vf  min(a,b) = a < b ? a : b, max(a,b) = a > b ? a : b       // so b where either is NaN
//   vf  rint(a) (half to even), abs(a), sqrt(a)
//   vf  clamp(x, lo, hi) as arith::clampf (NaN → lo)
//   vf  select_gt(a, b, x, y)                     // lane-wise a > b ? x : y
//   vf  scale2(x, e)                              // x·2^e, e integral float in [−126, 127]; below: flush towards 0
//   vi  to_int(vf) (rounds half to even), vf to_float(vi), vi operator+ - * &
//   vi  shl<n>(vi), sar<n>(vi) (arithmetic), bits_of(vf), vf from_bits(vi)
//   vi  load_i(const int32_t*), set1_i(int32_t), void store_i(int32_t*, vi)
//   void store_u8(uint8_t*, vi), store_u8_n(uint8_t*, vi, int n)   // lanes already in 0…255
//   float reduce_add(vf), reduce_max(vf), reduce_min(vf)           // in a fixed order
//
// math.h beside this file builds exp, softplus, silu, … from these words.
#pragma once
#include "ptq4vm/arith.h"

#if !defined(PTQ4VM_ISA)
#error "compile with -DPTQ4VM_ISA=portable|avx2|avx512|neon"
#endif

#if defined(PTQ4VM_ISA_AVX512)
#include "simd/avx512.h"
#elif defined(PTQ4VM_ISA_AVX2)
#include "simd/avx2.h"
#elif defined(PTQ4VM_ISA_NEON)
#include "simd/neon.h"
#else
#include "simd/portable.h"
#endif
