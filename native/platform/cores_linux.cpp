// Cores that this process may use, on Linux: sched_getaffinity, /sys/devices/system/cpu topology, and the
// CPU quota of the control group (v2 `cpu.max`, v1 `cpu.cfs_quota_us`), which containers are limited by.
#if defined(__linux__)

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "platform/cores.h"
#include "platform/platform.h"

namespace ptq4vm {
namespace platform {

namespace {

// First line of a small file; empty when it cannot be read.
std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Processors in units of whole CPUs that one control-group directory grants; 0 = no limit.
double quota_v2(const std::string& directory) {
  std::istringstream text(first_line(directory + "/cpu.max"));  // "max 100000" or "150000 100000"
  double quota = 0, period = 0;
  if (!(text >> quota >> period) || quota <= 0 || period <= 0) return 0;
  return quota / period;
}

double quota_v1(const std::string& directory) {
  std::istringstream quota_text(first_line(directory + "/cpu.cfs_quota_us"));
  std::istringstream period_text(first_line(directory + "/cpu.cfs_period_us"));
  double quota = 0, period = 0;
  if (!(quota_text >> quota) || !(period_text >> period) || quota <= 0 || period <= 0) return 0;
  return quota / period;
}

// The tightest quota from this group up to the root. Inside a container the group's path may not exist below
// the mount (the mount is the group itself), so the walk ends at the mount point in every case.
double tightest(const std::string& mount, std::string group, double (*quota)(const std::string&)) {
  double limit = 0;
  for (;;) {
    const double here = quota(mount + group);
    if (here > 0 && (limit == 0 || here < limit)) limit = here;
    const size_t slash = group.find_last_of('/');
    if (group.empty() || slash == std::string::npos) return limit;
    group.resize(slash);
  }
}

double cpu_quota(const std::string& sys, const std::string& cgroup) {
  const std::string root = sys + "/fs/cgroup";
  double limit = 0;
  const auto take = [&limit](double quota) {
    if (quota > 0 && (limit == 0 || quota < limit)) limit = quota;
  };
  std::istringstream lines(cgroup);  // "0::/path" (v2) or "4:cpu,cpuacct:/path" (v1)
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers == ",,") {
      take(tightest(root, group, quota_v2));
    } else if (controllers.find(",cpu,") != std::string::npos) {
      take(tightest(root + "/cpu", group, quota_v1));
      take(tightest(root + "/cpu,cpuacct", group, quota_v1));
    }
  }
  return limit;
}

// Processors this thread may run on. The set grows until the kernel's own fits.
std::vector<int> affinity() {
  for (int size = 1024; size <= (1 << 20); size *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(size));
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(size));
    CPU_ZERO_S(bytes, set);
    std::vector<int> allowed;
    const bool known = sched_getaffinity(0, bytes, set) == 0;
    for (int i = 0; known && i < size; i++) {
      if (CPU_ISSET_S(static_cast<size_t>(i), bytes, set)) allowed.push_back(i);
    }
    CPU_FREE(set);
    if (known && !allowed.empty()) return allowed;
  }
  std::vector<int> all(std::max(1u, std::thread::hardware_concurrency()));
  for (size_t i = 0; i < all.size(); i++) all[i] = static_cast<int>(i);
  return all;
}

CoreCounts measure() {
  const std::vector<int> allowed = affinity();
  std::ifstream file("/proc/self/cgroup");
  std::stringstream cgroup;
  cgroup << file.rdbuf();
  return count_cores(allowed.data(), allowed.size(), "/sys", cgroup.str().c_str());
}

const CoreCounts& cores() {
  static const CoreCounts counts = measure();
  return counts;
}

}  // namespace

CoreCounts count_cores(const int* allowed, size_t count, const char* sys, const char* cgroup) {
  std::set<std::string> distinct;
  for (size_t i = 0; i < count; i++) {
    const std::string cpu = std::string(sys) + "/devices/system/cpu/cpu" + std::to_string(allowed[i]);
    // The list of hyper-threads names a core uniquely, also where core_id repeats in every package.
    std::string core = first_line(cpu + "/topology/core_cpus_list");
    if (core.empty()) core = first_line(cpu + "/topology/thread_siblings_list");
    distinct.insert(core.empty() ? "cpu" + std::to_string(allowed[i]) : core);
  }
  CoreCounts counts{static_cast<int>(distinct.size()), static_cast<int>(count)};
  const double quota = cpu_quota(sys, cgroup);
  if (quota > 0) {
    const int whole = static_cast<int>(std::min(std::ceil(quota), 1e6));
    counts.physical = std::min(counts.physical, whole);
    counts.logical = std::min(counts.logical, whole);
  }
  counts.physical = std::max(counts.physical, 1);
  counts.logical = std::max(counts.logical, 1);
  return counts;
}

int physical_cores() { return cores().physical; }
int logical_cores() { return cores().logical; }

}  // namespace platform
}  // namespace ptq4vm

#endif  // __linux__
