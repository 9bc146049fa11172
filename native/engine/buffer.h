// Aligned memory that a Session owns.
#pragma once
#include <cstddef>
#include <cstring>
#include <new>
#include <utility>

#include "ptq4vm/view.h"

namespace ptq4vm {
namespace engine {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes) : bytes_(bytes) {
    if (bytes_ > 0) data_ = ::operator new(bytes_, std::align_val_t(kBufferAlignment));
  }
  ~AlignedBuffer() { release(); }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    if (this != &other) {
      release();
      data_ = std::exchange(other.data_, nullptr);
      bytes_ = std::exchange(other.bytes_, 0);
    }
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;

  // Makes room for `bytes`; the content is lost when it grows.
  void reserve(size_t bytes) {
    if (bytes > bytes_) *this = AlignedBuffer(bytes);
  }

  template <class T>
  T* as() const { return static_cast<T*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void release() {
    if (data_ != nullptr) ::operator delete(data_, std::align_val_t(kBufferAlignment));
    data_ = nullptr;
    bytes_ = 0;
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace engine
}  // namespace ptq4vm
