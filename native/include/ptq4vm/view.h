// Plain data that crosses between the engine and the kernels. No STL, no N-API.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define PTQ4VM_HD __host__ __device__
#else
#define PTQ4VM_HD
#endif

namespace ptq4vm {

// Activations [images, rows, channels]; a channel is contiguous, rows and images are strided (in
// elements), so that a channel slice of a wider tensor is a View too.
template <class T>
struct View {
  T* data;
  int64_t image_stride;
  int64_t row_stride;
  int32_t images;
  int32_t rows;
  int32_t channels;

  PTQ4VM_HD T* row(int64_t image, int64_t r) const { return data + image * image_stride + r * row_stride; }
  PTQ4VM_HD bool empty() const { return data == nullptr; }
};

// A half-open range of work items. How many items an op has is fixed by its shapes, never by the
// thread count, so results do not depend on the number of threads.
struct Span {
  int64_t begin;
  int64_t end;
};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Row strides of u8 tensors are multiples of this many bytes and the padding is readable, so that
// integer GEMMs may read K in whole vectors (packed weights are zero there).
constexpr int64_t kCodeRowAlignment = 64;
// Alignment in bytes of every buffer that the engine hands to a kernel.
constexpr size_t kBufferAlignment = 64;

}  // namespace ptq4vm
