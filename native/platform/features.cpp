// Processor features and model name: see platform.h.
#include <cstring>

#include "platform/platform.h"

#if defined(__x86_64__) || defined(_M_X64)
#define PTQ4VM_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#define PTQ4VM_ARM64 1
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#endif
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#if defined(PTQ4VM_ARM64) && defined(__linux__)
#include <cstdio>
#endif

namespace ptq4vm {
namespace platform {

namespace {

constexpr const char* kNames[kFeatureCount] = {
    "sse4.2",   "avx",      "avx2",       "fma",        "f16c",       "avx512f", "avx512bw",
    "avx512dq", "avx512vl", "avx512vnni", "avx512bf16", "avx512fp16", "avxvnni", "amx-tile",
    "amx-int8", "amx-bf16", "neon",       "fp16",       "dotprod",    "i8mm",    "sve",
};

struct Machine {
  bool present[kFeatureCount];
  char model[128];

  void set(Feature feature, bool value) { present[static_cast<int>(feature)] = value; }
};

// Copies a name without leading, trailing and doubled blanks: Intel pads its brand string.
void copy_model(char* to, size_t to_bytes, const char* from) {
  size_t n = 0;
  for (; *from != '\0' && *from != '\n' && n + 1 < to_bytes; from++) {
    if (*from == ' ' && (n == 0 || to[n - 1] == ' ')) continue;
    to[n++] = *from;
  }
  while (n > 0 && to[n - 1] == ' ') n--;
  to[n] = '\0';
}

#if defined(PTQ4VM_X86)

struct Registers {
  uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r{0, 0, 0, 0};
#if defined(_MSC_VER)
  int out[4];
  __cpuidex(out, static_cast<int>(leaf), static_cast<int>(subleaf));
  std::memcpy(&r, out, sizeof(r));
#else
  __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
#endif
  return r;
}

// XCR0: the register states that the operating system saves at a task switch.
uint64_t xcr0() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
#endif
}

// Bit numbers: Intel 64 and IA-32 Architectures Software Developer's Manual, CPUID leaves 1 and 7, and XCR0.
void detect(Machine* machine) {
  const auto bit = [](uint32_t word, int n) { return ((word >> n) & 1u) != 0; };
  const uint32_t max_leaf = cpuid(0, 0).eax;
  if (max_leaf >= 1) {
    const Registers one = cpuid(1, 0);
    const uint64_t saved = bit(one.ecx, 27) ? xcr0() : 0;  // bit 27: OSXSAVE
    const bool ymm = (saved & 0x6) == 0x6;                 // xmm, ymm
    const bool zmm = (saved & 0xe6) == 0xe6;               // and mask registers, both halves of zmm
    const bool tile = (saved & 0x60000) == 0x60000;        // tile configuration and data
    machine->set(Feature::sse42, bit(one.ecx, 20));
    machine->set(Feature::avx, ymm && bit(one.ecx, 28));
    machine->set(Feature::fma, ymm && bit(one.ecx, 12));
    machine->set(Feature::f16c, ymm && bit(one.ecx, 29));
    if (max_leaf >= 7) {
      const Registers seven = cpuid(7, 0);
      machine->set(Feature::avx2, ymm && bit(seven.ebx, 5));
      machine->set(Feature::avx512f, zmm && bit(seven.ebx, 16));
      machine->set(Feature::avx512dq, zmm && bit(seven.ebx, 17));
      machine->set(Feature::avx512bw, zmm && bit(seven.ebx, 30));
      machine->set(Feature::avx512vl, zmm && bit(seven.ebx, 31));
      machine->set(Feature::avx512vnni, zmm && bit(seven.ecx, 11));
      machine->set(Feature::avx512fp16, zmm && bit(seven.edx, 23));
      machine->set(Feature::amx_bf16, tile && bit(seven.edx, 22));
      machine->set(Feature::amx_tile, tile && bit(seven.edx, 24));
      machine->set(Feature::amx_int8, tile && bit(seven.edx, 25));
      if (seven.eax >= 1) {
        const Registers more = cpuid(7, 1);
        machine->set(Feature::avxvnni, ymm && bit(more.eax, 4));
        machine->set(Feature::avx512bf16, zmm && bit(more.eax, 5));
      }
    }
  }
  if (cpuid(0x80000000u, 0).eax >= 0x80000004u) {
    char brand[49] = {};
    for (uint32_t i = 0; i < 3; i++) {
      const Registers r = cpuid(0x80000002u + i, 0);
      std::memcpy(brand + 16 * i, &r, 16);
    }
    copy_model(machine->model, sizeof(machine->model), brand);
  }
}

#elif defined(PTQ4VM_ARM64)

#if defined(__linux__)
// arm64 has no brand string in user space; a virtual machine often tells its model through the device tree.
void read_model(Machine* machine) {
  std::FILE* file = std::fopen("/proc/device-tree/model", "r");
  char line[128] = {};
  if (file == nullptr) return;
  if (std::fgets(line, sizeof(line), file) != nullptr) copy_model(machine->model, sizeof(machine->model), line);
  std::fclose(file);
}
#endif

#if defined(__APPLE__)
bool sysctl_flag(const char* name) {
  int value = 0;
  size_t size = sizeof(value);
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
#endif

void detect(Machine* machine) {
  machine->set(Feature::neon, true);  // part of the base architecture
#if defined(__linux__)
  const unsigned long hwcap = getauxval(AT_HWCAP), hwcap2 = getauxval(AT_HWCAP2);
  machine->set(Feature::fp16, (hwcap & HWCAP_ASIMDHP) != 0);
  machine->set(Feature::dotprod, (hwcap & HWCAP_ASIMDDP) != 0);
  machine->set(Feature::sve, (hwcap & HWCAP_SVE) != 0);
#if defined(HWCAP2_I8MM)
  machine->set(Feature::i8mm, (hwcap2 & HWCAP2_I8MM) != 0);
#else
  (void)hwcap2;
#endif
  read_model(machine);
#elif defined(__APPLE__)
  machine->set(Feature::fp16, sysctl_flag("hw.optional.arm.FEAT_FP16"));
  machine->set(Feature::dotprod, sysctl_flag("hw.optional.arm.FEAT_DotProd"));
  machine->set(Feature::i8mm, sysctl_flag("hw.optional.arm.FEAT_I8MM"));
  size_t size = sizeof(machine->model);
  if (sysctlbyname("machdep.cpu.brand_string", machine->model, &size, nullptr, 0) != 0) machine->model[0] = '\0';
#endif
}

#else

void detect(Machine*) {}

#endif

const Machine& machine() {
  static const Machine instance = [] {
    Machine m = {};
    detect(&m);
    if (m.model[0] == '\0') copy_model(m.model, sizeof(m.model), "unknown");
    return m;
  }();
  return instance;
}

}  // namespace

bool has(Feature feature) { return machine().present[static_cast<int>(feature)]; }

const char* feature_name(Feature feature) { return kNames[static_cast<int>(feature)]; }

const char* cpu_model() { return machine().model; }

}  // namespace platform
}  // namespace ptq4vm
