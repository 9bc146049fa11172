// The Session class of lib/native/addon-types.ts.
#pragma once
#include "bindings/marshal.h"

namespace ptq4vm {
namespace bindings {

Napi::Function define_session(Napi::Env env);

}  // namespace bindings
}  // namespace ptq4vm
