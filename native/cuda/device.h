// Which CUDA devices answer, and when none does, why. Plain data, also in builds without CUDA
// (device_stub.cpp), so that the engine asks the same question everywhere.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ptq4vm {
namespace cuda {

constexpr int kMaxDevices = 16;
// Kernels are compiled for this compute capability and later.
constexpr int kMinMajor = 7, kMinMinor = 5;

struct Device {
  int32_t index;  // as the CUDA runtime counts (after CUDA_VISIBLE_DEVICES)
  char name[256];
  int32_t major, minor;  // compute capability
  int64_t memory_bytes;
};

struct DeviceReport {
  bool compiled;            // false in a build without CUDA
  bool available;           // a device of compute capability ≥ 7.5 answers
  char reason[512];         // why not, in words a user can act on; empty when available
  int32_t driver_version;   // as CUDA codes it, 1000·major + 10·minor; 0 when there is no driver
  int32_t runtime_version;  // of the runtime linked in; 0 without CUDA
  int32_t device_count;     // entries of `devices` (at most kMaxDevices), too old ones included
  Device devices[kMaxDevices];
};

// Asks driver and runtime; creates no context. Safe to call with no driver installed.
void query_devices(DeviceReport* report);

// CUDA version of the toolkit this addon was compiled with, 1000·major + 10·minor; 0 without CUDA.
int32_t toolkit_version();

// Runs a small kernel on one device: quantizes values planted around every rounding and clamping case with
// arith::quantize_code and compares the codes with the host's, which must be equal bit by bit. Creates a context
// (some 100 ms). Returns true when all agree; otherwise `message` says what went wrong.
bool self_check(int32_t device, char* message, size_t message_bytes);

}  // namespace cuda
}  // namespace ptq4vm
