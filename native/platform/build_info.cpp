#include "platform/build_info.h"

#if !defined(PTQ4VM_VERSION) || !defined(PTQ4VM_BUILD_TYPE)
#error "the build passes -DPTQ4VM_VERSION=\"…\" and -DPTQ4VM_BUILD_TYPE=\"…\""
#endif

#define PTQ4VM_STRING2(x) #x
#define PTQ4VM_STRING(x) PTQ4VM_STRING2(x)

namespace ptq4vm {
namespace platform {

const char* build_version() { return PTQ4VM_VERSION; }

const char* build_compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#elif defined(__GNUC__)
  return "GCC " __VERSION__;
#elif defined(_MSC_VER)
  return "MSVC " PTQ4VM_STRING(_MSC_FULL_VER);
#else
  return "unknown compiler";
#endif
}

const char* build_type() { return PTQ4VM_BUILD_TYPE; }

}  // namespace platform
}  // namespace ptq4vm
