// ptq4vm-test: once
// Core counting on made-up machines, and the list of instruction sets of this build. Exit status 1 on a failure.
#include "platform/platform.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "cpu/table.h"
#include "platform/cores.h"

using namespace ptq4vm;
namespace fs = std::filesystem;

namespace {

int failures = 0;

void check(bool good, const std::string& what) {
  if (good) return;
  failures++;
  std::printf("FAIL %s\n", what.c_str());
}

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

#if defined(__linux__)

void check_counts(const std::string& name, const fs::path& sys, std::vector<int> allowed, const char* cgroup,
                  int physical, int logical) {
  const platform::CoreCounts c = platform::count_cores(allowed.data(), allowed.size(), sys.c_str(), cgroup);
  check(c.physical == physical && c.logical == logical, name + ": got " + std::to_string(c.physical) + " physical, " +
                                                            std::to_string(c.logical) + " logical; expected " +
                                                            std::to_string(physical) + ", " + std::to_string(logical));
}

void core_counts() {
  const fs::path sys = fs::temp_directory_path() / ("ptq4vm-platform-test-" + std::to_string(std::rand()));
  // Two packages of two cores of two threads, numbered as Linux does: siblings are n and n + 4; core_id repeats.
  for (int cpu = 0; cpu < 8; cpu++) {
    const int first = cpu % 4;
    write(sys / ("devices/system/cpu/cpu" + std::to_string(cpu)) / "topology/core_cpus_list",
          std::to_string(first) + "," + std::to_string(first + 4) + "\n");
  }
  const std::vector<int> all{0, 1, 2, 3, 4, 5, 6, 7};
  check_counts("whole machine", sys, all, "0::/\n", 4, 8);
  check_counts("both threads of two cores", sys, {0, 1, 4, 5}, "0::/\n", 2, 4);
  check_counts("one thread of each of two cores", sys, {2, 7}, "", 2, 2);
  check_counts("no topology", sys / "nowhere", {0, 1, 2}, "", 3, 3);

  write(sys / "fs/cgroup/limited/cpu.max", "150000 100000\n");
  write(sys / "fs/cgroup/limited/inner/cpu.max", "max 100000\n");
  check_counts("v2 quota of 1.5 CPUs, set on the parent", sys, all, "0::/limited/inner\n", 2, 2);
  check_counts("v2 without a quota", sys, all, "0::/other\n", 4, 8);
  write(sys / "fs/cgroup/cpu.max", "600000 100000\n");
  check_counts("v2 quota of a container, whose own path is not mounted", sys, all, "0::/docker/abc\n", 4, 6);
  check_counts("the tightest of several quotas", sys, all, "0::/limited\n", 2, 2);
  write(sys / "fs/cgroup/cpu.max", "1000 100000\n");
  check_counts("less than one CPU is one", sys, all, "0::/\n", 1, 1);
  write(sys / "fs/cgroup/cpu.max", "nonsense\n");
  check_counts("an unreadable quota is none", sys, all, "0::/\n", 4, 8);

  write(sys / "fs/cgroup/cpu/group/cpu.cfs_quota_us", "300000\n");
  write(sys / "fs/cgroup/cpu/group/cpu.cfs_period_us", "100000\n");
  check_counts("v1 quota", sys, all, "5:memory:/x\n4:cpu,cpuacct:/group\n", 3, 3);
  write(sys / "fs/cgroup/cpu/group/cpu.cfs_quota_us", "-1\n");
  check_counts("v1 without a quota", sys, all, "4:cpu,cpuacct:/group\n", 4, 8);
  fs::remove_all(sys);
}

#else
void core_counts() {}
#endif

// Every function pointer of a table is set: the members before `name` aside, an OpTable is nothing but function
// pointers.
void check_table(const OpTable& table) {
  using Function = void (*)();
  static_assert((sizeof(OpTable) - sizeof(const char*)) % sizeof(Function) == 0,
                "an OpTable is a name and function pointers");
  const size_t count = (sizeof(OpTable) - sizeof(const char*)) / sizeof(Function);
  std::vector<Function> functions(count);
  std::memcpy(functions.data(), reinterpret_cast<const char*>(&table) + sizeof(const char*), count * sizeof(Function));
  for (size_t i = 0; i < count; i++) {
    check(functions[i] != nullptr, std::string("table ") + table.name + " lacks function " + std::to_string(i));
  }
}

void set_isa(const char* value) {
#if defined(_WIN32)
  _putenv_s("PTQ4VM_ISA", value);
#else
  setenv("PTQ4VM_ISA", value, 1);
#endif
}

void instruction_sets() {
  int count = 0;
  const cpu::IsaInfo* sets = cpu::isa_list(&count);
  check(count >= 2 && std::strcmp(sets[0].name, "reference") == 0 && std::strcmp(sets[1].name, "portable") == 0,
        "the list begins with reference, portable");
  set_isa("");
  const char* strongest = nullptr;
  for (int i = 0; i < count; i++) {
    if (!sets[i].usable()) {
      check(cpu::select_table(sets[i].name) == nullptr, std::string(sets[i].name) + " is selected though not usable");
      continue;
    }
    strongest = sets[i].name;
    const OpTable* table = sets[i].table();
    check(table != nullptr && std::strcmp(table->name, sets[i].name) == 0, std::string("the table of ") + sets[i].name);
    if (table != nullptr) check_table(*table);
    check(cpu::select_table(sets[i].name) == table, std::string("selection of ") + sets[i].name);
    set_isa(sets[i].name);
    check(cpu::select_table(nullptr) == table, std::string("PTQ4VM_ISA=") + sets[i].name);
    set_isa("");
  }
  const OpTable* automatic = cpu::select_table(nullptr);
  check(automatic != nullptr && std::strcmp(automatic->name, strongest) == 0, "auto takes the strongest usable set");
  check(cpu::select_table("avx1024") == nullptr, "an unknown name selects nothing");
  set_isa("avx1024");
  check(cpu::select_table(nullptr) == nullptr, "an unknown PTQ4VM_ISA selects nothing, it does not fall back");
  check(cpu::select_table("portable") != nullptr, "an explicit name goes before PTQ4VM_ISA");
  set_isa("");
}

void machine() {
  check(platform::physical_cores() >= 1 && platform::logical_cores() >= platform::physical_cores(),
        "core counts of this machine");
  check(platform::cpu_model()[0] != '\0', "the model has a name");
  for (int i = 0; i < platform::kFeatureCount; i++) {
    const char* name = platform::feature_name(static_cast<platform::Feature>(i));
    check(name != nullptr && name[0] != '\0', "feature " + std::to_string(i) + " has a name");
  }
}

}  // namespace

int main() {
  core_counts();
  instruction_sets();
  machine();
  std::printf("%s\n", failures == 0 ? "ok" : "FAILED");
  return failures == 0 ? 0 : 1;
}
