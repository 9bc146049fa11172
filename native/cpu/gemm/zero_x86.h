// The zero-point term zero·col_sum in one instruction of the vpmaddwd family, where a 32-bit multiplication takes two
// and a subtraction one more (with K = 12 the epilogue is most of the work).
//
// zero·col_sum = 128·col_sum + z·col_sum with z = zero − 128 in −128…127; col_sum = 256·high + low, 0 ≤ low < 256, so
// that
//   −z·col_sum = z·(−low) + (256·z)·(−high)
// is a sum of two products of 16-bit numbers: |high| ≤ 127·65,536/256 = 32,512 for K ≤ 65,536. The sums start at
// −128·col_sum. All of it modulo 2³²; the result is in range, hence exact.
#pragma once
#include <cstdint>

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

static inline int32_t pair16(int32_t low, int32_t high) {
  return static_cast<int32_t>((static_cast<uint32_t>(high) << 16) | (static_cast<uint32_t>(low) & 0xffffu));
}
static inline int32_t zero_start(int32_t col_sum) { return -128 * col_sum; }
static inline int32_t zero_row_word(int32_t zero) { return pair16(zero - 128, 256 * (zero - 128)); }
static inline int32_t zero_column_word(int32_t col_sum) { return pair16(-(col_sum & 255), -(col_sum >> 8)); }

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
