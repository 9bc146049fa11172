// Packing of logical [out, in] weights into panels, the one layout of all matrix kernels.
//
//   panel: `columns` output channels, stored one after another; the last panel is only as wide as the remaining
//   channels need, rounded up to `vector` of them.
//   in a panel of width w: element (k, c) lies at (k / interleave)·w·interleave + c·interleave + k mod interleave,
//   so that a vector of `vector` channels holds `interleave` neighbouring k of each.
//   K is padded to a multiple of `depth_multiple`. All padding is zero.
//
// A panel therefore starts at element (first channel)·(padded K), whatever its width.
#pragma once
#include "ptq4vm/view.h"

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

template <class Packed>
static inline size_t packed_size(int32_t out, int32_t in, int32_t vector, int32_t depth_multiple) {
  const int64_t elements = round_up(out, vector) * round_up(in, depth_multiple);
  return static_cast<size_t>(round_up(elements * static_cast<int64_t>(sizeof(Packed)), kBufferAlignment));
}

template <class T, class Packed>
static inline void pack_panels(const T* weight, int32_t out, int32_t in, int32_t columns, int32_t vector,
                               int32_t depth_multiple, int64_t interleave, Packed* packed) {
  const size_t bytes = packed_size<Packed>(out, in, vector, depth_multiple);
  for (size_t i = 0; i < bytes / sizeof(Packed); ++i) packed[i] = 0;
  const int64_t depth = round_up(in, depth_multiple);
  for (int32_t first = 0; first < out; first += columns) {
    const int64_t left = round_up(out - first, vector);
    const int64_t width = left < columns ? left : columns;
    Packed* panel = packed + first * depth;
    for (int32_t c = 0; c < width && first + c < out; ++c) {
      const T* row = weight + static_cast<int64_t>(first + c) * in;
      for (int64_t k = 0; k < in; ++k) {
        panel[(k / interleave) * width * interleave + c * interleave + k % interleave] = static_cast<Packed>(row[k]);
      }
    }
  }
}

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
