// Subnormal numbers as zero, for as long as the guard lives.
//
// A decayed state shrinks below 1.2e-38 and stays there, and x86 processors take some hundred cycles for
// every operation that meets a subnormal. AArch64 does not, so the guard does nothing there.
#pragma once
#if defined(__SSE__) || defined(_M_X64)
#include <xmmintrin.h>
#define PTQ4VM_HAVE_MXCSR 1
#endif

namespace ptq4vm {
namespace cpu {
namespace PTQ4VM_ISA {

class FlushDenormals {
 public:
#if defined(PTQ4VM_HAVE_MXCSR)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040u); }  // FTZ, DAZ
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#else
  FlushDenormals() {}
  ~FlushDenormals() {}
#endif

 public:
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
};

}  // namespace PTQ4VM_ISA
}  // namespace cpu
}  // namespace ptq4vm
