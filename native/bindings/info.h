// build, cpu() and cuda() of lib/native/addon-types.ts.
#pragma once
#include "bindings/marshal.h"

namespace ptq4vm {
namespace bindings {

Napi::Object build_info(Napi::Env env);
Napi::Value cpu_info(const Napi::CallbackInfo& info);
Napi::Value cuda_info(const Napi::CallbackInfo& info);

}  // namespace bindings
}  // namespace ptq4vm
