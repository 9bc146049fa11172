#include "bindings/info.h"

#include <algorithm>

#include "cpu/table.h"
#include "cuda/device.h"
#include "platform/build_info.h"
#include "platform/platform.h"

namespace ptq4vm {
namespace bindings {

namespace {

// CUDA codes a version as 1000·major + 10·minor.
std::string cuda_version(int32_t v) {
  return v == 0 ? "" : std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
}

Napi::Array isa_names(Napi::Env env, bool only_usable) {
  Napi::Array names = Napi::Array::New(env);
  int count = 0;
  const cpu::IsaInfo* list = cpu::isa_list(&count);
  for (int i = 0; i < count; i++) {
    if (!only_usable || list[i].usable()) names.Set(names.Length(), list[i].name);
  }
  return names;
}

}  // namespace

Napi::Object build_info(Napi::Env env) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("version", platform::build_version());
  o.Set("compiler", platform::build_compiler());
  o.Set("buildType", platform::build_type());
  o.Set("isas", isa_names(env, false));
  o.Set("cudaCompiled", cuda::toolkit_version() != 0);
  o.Set("cudaToolkit", cuda_version(cuda::toolkit_version()));
  return o;
}

Napi::Value cpu_info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object o = Napi::Object::New(env);
  o.Set("model", platform::cpu_model());
  o.Set("physicalCores", platform::physical_cores());
  o.Set("logicalCores", platform::logical_cores());
  Napi::Array features = Napi::Array::New(env);
  for (int i = 0; i < platform::kFeatureCount; i++) {
    const auto feature = static_cast<platform::Feature>(i);
    if (platform::has(feature)) features.Set(features.Length(), platform::feature_name(feature));
  }
  o.Set("features", features);
  o.Set("isas", isa_names(env, true));
  const OpTable* table = cpu::select_table(nullptr);
  o.Set("isa", table == nullptr ? "" : table->name);
  return o;
}

Napi::Value cuda_info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  cuda::DeviceReport report{};
  cuda::query_devices(&report);
  Napi::Object o = Napi::Object::New(env);
  o.Set("compiled", report.compiled);
  o.Set("available", report.available);
  o.Set("reason", report.reason);
  o.Set("driver", cuda_version(report.driver_version));
  o.Set("runtime", cuda_version(report.runtime_version));
  Napi::Array devices = Napi::Array::New(env);
  for (int32_t i = 0; i < std::min(report.device_count, cuda::kMaxDevices); i++) {
    const cuda::Device& d = report.devices[i];
    Napi::Object device = Napi::Object::New(env);
    device.Set("index", d.index);
    device.Set("name", d.name);
    device.Set("computeCapability", std::to_string(d.major) + "." + std::to_string(d.minor));
    device.Set("memoryBytes", static_cast<double>(d.memory_bytes));
    devices.Set(devices.Length(), device);
  }
  o.Set("devices", devices);
  return o;
}

}  // namespace bindings
}  // namespace ptq4vm
