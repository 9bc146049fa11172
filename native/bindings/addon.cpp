// Entry of ptq4vm.node: what it exports is stated in lib/native/addon-types.ts.
#include "bindings/calibration_binding.h"
#include "bindings/cancel_token.h"
#include "bindings/info.h"
#include "bindings/session_binding.h"
#include "cuda/device.h"

namespace ptq4vm {
namespace bindings {

namespace {

// selfCheck(device): '' when the GPU computes the shared arithmetic like the host, else what differed.
Napi::Value cuda_self_check(const Napi::CallbackInfo& info) {
  char message[512] = "";
  const int32_t device = info[0].IsNumber() ? info[0].As<Napi::Number>().Int32Value() : 0;
  const bool good = cuda::self_check(device, message, sizeof message);
  return Napi::String::New(info.Env(), good ? "" : message);
}

}  // namespace

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("build", build_info(env));
  exports.Set("cpu", Napi::Function::New(env, cpu_info, "cpu"));
  exports.Set("cuda", Napi::Function::New(env, cuda_info, "cuda"));
  exports.Set("cudaSelfCheck", Napi::Function::New(env, cuda_self_check, "cudaSelfCheck"));
  exports.Set("Session", define_session(env));
  exports.Set("CancelToken", CancelToken::define(env));
  exports.Set("calibration", calibration(env));
  return exports;
}

}  // namespace bindings
}  // namespace ptq4vm

static Napi::Object InitPtq4vm(Napi::Env env, Napi::Object exports) { return ptq4vm::bindings::init(env, exports); }
NODE_API_MODULE(ptq4vm, InitPtq4vm)
