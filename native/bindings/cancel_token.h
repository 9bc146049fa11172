// CancelToken of lib/native/addon-types.ts: a flag shared with running work.
#pragma once
#include <atomic>
#include <memory>

#include "bindings/marshal.h"

namespace ptq4vm {
namespace bindings {

using CancelFlag = std::shared_ptr<std::atomic<int32_t>>;

class CancelToken final : public Napi::ObjectWrap<CancelToken> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "CancelToken", {InstanceMethod("cancel", &CancelToken::cancel)});
  }
  explicit CancelToken(const Napi::CallbackInfo& info) : Napi::ObjectWrap<CancelToken>(info) {}

  // The flag of `options.cancel`, or nullptr when there is none.
  static CancelFlag of(const Napi::Object& options) {
    const Napi::Value value = options.Get("cancel");
    if (!value.IsObject()) return nullptr;
    return Napi::ObjectWrap<CancelToken>::Unwrap(value.As<Napi::Object>())->flag_;
  }

 private:
  void cancel(const Napi::CallbackInfo&) { flag_->store(1, std::memory_order_relaxed); }

  CancelFlag flag_ = std::make_shared<std::atomic<int32_t>>(0);
};

}  // namespace bindings
}  // namespace ptq4vm
