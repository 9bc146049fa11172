// Device detection through the CUDA runtime: see device.h.
//
// The runtime is linked statically and opens the driver library itself, so that this file loads and answers on
// machines without any NVIDIA software; cudaGetDeviceCount then returns cudaErrorInsufficientDriver (35) and leaves
// its argument untouched.
#include <cuda_runtime_api.h>

#include <cstdarg>
#include <cstdio>
#include <memory>
#include <new>

#include "cuda/device.h"
#include "ptq4vm/arith.h"

namespace ptq4vm {
namespace cuda {

namespace {

void explain(char* text, size_t bytes, const char* format, ...) {
  if (bytes == 0) return;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, bytes, format, arguments);
  va_end(arguments);
}

int major_of(int32_t version) { return version / 1000; }
int minor_of(int32_t version) { return version % 1000 / 10; }

// Why the runtime refused, and what a user can do about it.
void explain_error(DeviceReport* report, cudaError_t error) {
  char* text = report->reason;
  const size_t bytes = sizeof(report->reason);
  const int major = major_of(report->runtime_version), minor = minor_of(report->runtime_version);
  switch (error) {
    case cudaErrorInsufficientDriver:
      if (report->driver_version == 0) {
        explain(text, bytes,
                "No NVIDIA driver answers (libcuda could not be loaded). Install a driver that supports CUDA %d.%d; in "
                "a container, "
                "start it with the NVIDIA container toolkit (for example `docker run --gpus all`).",
                major, minor);
      } else {
        explain(text, bytes,
                "The NVIDIA driver is too old: it supports CUDA up to %d.%d, this build needs %d.%d. Update the "
                "driver, or rebuild "
                "with an older CUDA toolkit (`npm rebuild ptq4vm-native`).",
                major_of(report->driver_version), minor_of(report->driver_version), major, minor);
      }
      return;
    case cudaErrorNoDevice:
      explain(text, bytes,
              "The NVIDIA driver is installed but shows no GPU. Check `nvidia-smi` and the environment variable "
              "CUDA_VISIBLE_DEVICES.");
      return;
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
      explain(text, bytes,
              "The NVIDIA kernel module and its user libraries do not match (%s). Reboot or reinstall the driver.",
              cudaGetErrorString(error));
      return;
    default:
      explain(text, bytes, "The CUDA runtime failed with error %d (%s): %s.", static_cast<int>(error),
              cudaGetErrorName(error), cudaGetErrorString(error));
  }
}

struct Case {
  float x, smooth_rscale, act_rscale;
  int32_t zero, qmax;
};

// Codes of `count` cases, one thread each. codes[i] = arith::quantize_code(cases[i]…).
__global__ void quantize_cases(const Case* cases, int32_t* codes, int32_t count) {
  const int32_t i = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= count) return;
  const Case c = cases[i];
  codes[i] = arith::quantize_code(c.x, c.smooth_rscale, c.act_rscale, c.zero, c.qmax);
}

constexpr int32_t kCaseCount = 4096;

// Halves in both directions, values beyond both clamps, and products whose last bit a fused multiply-add would change.
void plant_cases(Case* cases) {
  for (int32_t i = 0; i < kCaseCount; i++) {
    const int32_t bits = 4 + 2 * (i % 3);
    const int32_t qmax = (1 << bits) - 1;
    const float half_step = 0.5f * static_cast<float>(i % 1201 - 600);
    const float smooth_rscale = i % 2 == 0 ? 1.0f : 1.0f / static_cast<float>(1 + i % 7);
    const float act_rscale = i % 5 == 0 ? 1.0f : 1.0f / (0.01f + 0.003f * static_cast<float>(i % 89));
    cases[i] = Case{half_step / smooth_rscale / act_rscale, smooth_rscale, act_rscale, i % (qmax + 1), qmax};
  }
}

// Everything between allocation and comparison; device memory is released by the caller.
cudaError_t run_cases(const Case* cases, Case* device_cases, int32_t* device_codes, int32_t* codes) {
  cudaError_t error = cudaMemcpy(device_cases, cases, kCaseCount * sizeof(Case), cudaMemcpyHostToDevice);
  if (error != cudaSuccess) return error;
  constexpr int kThreads = 128;
  quantize_cases<<<(kCaseCount + kThreads - 1) / kThreads, kThreads>>>(device_cases, device_codes, kCaseCount);
  error = cudaGetLastError();
  if (error != cudaSuccess) return error;
  return cudaMemcpy(codes, device_codes, kCaseCount * sizeof(int32_t), cudaMemcpyDeviceToHost);
}

}  // namespace

void query_devices(DeviceReport* report) {
  *report = DeviceReport{};
  report->compiled = true;
  int version = 0;
  if (cudaRuntimeGetVersion(&version) == cudaSuccess) report->runtime_version = version;
  version = 0;
  if (cudaDriverGetVersion(&version) == cudaSuccess) report->driver_version = version;

  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    (void)cudaGetLastError();  // the runtime remembers it otherwise
    explain_error(report, error);
    return;
  }
  for (int i = 0; i < count && report->device_count < kMaxDevices; i++) {
    cudaDeviceProp properties;
    const cudaError_t failed = cudaGetDeviceProperties(&properties, i);
    if (failed != cudaSuccess) {
      (void)cudaGetLastError();
      explain_error(report, failed);
      continue;
    }
    Device& device = report->devices[report->device_count++];
    device.index = i;
    std::snprintf(device.name, sizeof(device.name), "%s", properties.name);
    device.major = properties.major;
    device.minor = properties.minor;
    device.memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
    if (device.major > kMinMajor || (device.major == kMinMajor && device.minor >= kMinMinor)) report->available = true;
  }
  if (report->available) {
    report->reason[0] = '\0';
  } else if (report->device_count > 0) {
    explain(report->reason, sizeof(report->reason),
            "No GPU here is new enough: the kernels need compute capability %d.%d (Turing) or later, %s has %d.%d.",
            kMinMajor, kMinMinor, report->devices[0].name, report->devices[0].major, report->devices[0].minor);
  } else if (report->reason[0] == '\0') {
    explain_error(report, cudaErrorNoDevice);
  }
}

int32_t toolkit_version() { return CUDART_VERSION; }

bool self_check(int32_t device, char* message, size_t message_bytes) {
  const std::unique_ptr<Case[]> cases(new (std::nothrow) Case[kCaseCount]);
  const std::unique_ptr<int32_t[]> codes(new (std::nothrow) int32_t[kCaseCount]);
  if (cases == nullptr || codes == nullptr) {
    explain(message, message_bytes, "Out of host memory.");
    return false;
  }
  plant_cases(cases.get());

  Case* device_cases = nullptr;
  int32_t* device_codes = nullptr;
  cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess) error = cudaMalloc(reinterpret_cast<void**>(&device_cases), kCaseCount * sizeof(Case));
  if (error == cudaSuccess) error = cudaMalloc(reinterpret_cast<void**>(&device_codes), kCaseCount * sizeof(int32_t));
  if (error == cudaSuccess) error = run_cases(cases.get(), device_cases, device_codes, codes.get());
  (void)cudaFree(device_cases);
  (void)cudaFree(device_codes);
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
    explain(message, message_bytes, "GPU %d failed its self-check with CUDA error %d (%s): %s.",
            static_cast<int>(device), static_cast<int>(error), cudaGetErrorName(error), cudaGetErrorString(error));
    return false;
  }
  for (int32_t i = 0; i < kCaseCount; i++) {
    const Case& c = cases[i];
    const int32_t want = arith::quantize_code(c.x, c.smooth_rscale, c.act_rscale, c.zero, c.qmax);
    if (codes[i] == want) continue;
    explain(message, message_bytes, "GPU %d computes another code than the host for %.9g: %d instead of %d.",
            static_cast<int>(device), static_cast<double>(c.x), static_cast<int>(codes[i]), static_cast<int>(want));
    return false;
  }
  explain(message, message_bytes, "%d codes equal to the host's.", static_cast<int>(kCaseCount));
  return true;
}

}  // namespace cuda
}  // namespace ptq4vm
