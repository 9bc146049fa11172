// The calibration functions of lib/native/addon-types.ts.
#pragma once
#include "bindings/marshal.h"

namespace ptq4vm {
namespace bindings {

Napi::Object calibration(Napi::Env env);

}  // namespace bindings
}  // namespace ptq4vm
