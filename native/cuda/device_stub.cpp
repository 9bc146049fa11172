// The answer of builds that have no CUDA compiler: see device.h.
#include <cstdio>

#include "cuda/device.h"

namespace ptq4vm {
namespace cuda {

namespace {
constexpr char kReason[] =
    "This build of ptq4vm-native has no CUDA code: no CUDA compiler (nvcc) was found, or PTQ4VM_CUDA=off was set, when "
    "it was "
    "compiled. Install the CUDA toolkit (12.0 or later), put nvcc on PATH, and run `npm rebuild ptq4vm-native`.";
}  // namespace

void query_devices(DeviceReport* report) {
  *report = DeviceReport{};
  std::snprintf(report->reason, sizeof(report->reason), "%s", kReason);
}

int32_t toolkit_version() { return 0; }

bool self_check(int32_t, char* message, size_t message_bytes) {
  if (message_bytes > 0) std::snprintf(message, message_bytes, "%s", kReason);
  return false;
}

}  // namespace cuda
}  // namespace ptq4vm
