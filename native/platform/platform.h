// What the machine is: processor features, model, cores. Everything that depends on the operating
// system or the compiler lives behind this header; nothing POSIX-only stands outside native/platform.
#pragma once
#include <cstdint>

namespace ptq4vm {
namespace platform {

// A feature counts as present when the processor has it and the operating system saves its registers
// (CPUID together with XGETBV on x86; AT_HWCAP on arm64 Linux, sysctl on macOS).
enum class Feature : int {
  // x86-64
  sse42,
  avx,
  avx2,
  fma,
  f16c,
  avx512f,
  avx512bw,
  avx512dq,
  avx512vl,
  avx512vnni,
  avx512bf16,
  avx512fp16,
  avxvnni,
  amx_tile,
  amx_int8,
  amx_bf16,
  // arm64
  neon,
  fp16,
  dotprod,
  i8mm,
  sve,
  count,  // not a feature
};

constexpr int kFeatureCount = static_cast<int>(Feature::count);

bool has(Feature feature);

// The name that users see: avx512vnni, amx-int8, dotprod, …
const char* feature_name(Feature feature);

// "Intel(R) Xeon(R) Processor …"; "unknown" where the system does not tell. Never nullptr.
const char* cpu_model();

// Cores that this process may use: its affinity mask, cut to the CPU quota of its control group
// (rounded up). Physical counts hyper-threads of one core once. At least 1.
int physical_cores();
int logical_cores();

}  // namespace platform
}  // namespace ptq4vm
