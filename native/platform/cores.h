// The parts of core counting that can be tested against a made-up machine: see cores_linux.cpp.
#pragma once
#include <cstddef>

namespace ptq4vm {
namespace platform {

struct CoreCounts {
  int physical;
  int logical;
};

// Counts for processors `allowed[0…count)` (numbers as Linux gives them).
// `sys`: where sysfs lies ("/sys"); `cgroup`: contents of /proc/self/cgroup (may be empty).
CoreCounts count_cores(const int* allowed, size_t count, const char* sys, const char* cgroup);

}  // namespace platform
}  // namespace ptq4vm
