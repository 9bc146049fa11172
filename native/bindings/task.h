// Work off the event loop: runs on a worker thread, settles a promise, touches no JavaScript value in between.
#pragma once
#include <functional>
#include <utility>

#include "bindings/marshal.h"

namespace ptq4vm {
namespace bindings {

class Task final : public Napi::AsyncWorker {
 public:
  // `work` runs off-thread, `finish` on the event loop makes the result. `keep` is held alive until then:
  // the typed arrays whose memory `work` reads or writes.
  static Napi::Value start(Napi::Env env, std::vector<Napi::ObjectReference> keep, std::function<void()> work,
                           std::function<Napi::Value(Napi::Env)> finish) {
    auto* task = new Task(env, std::move(keep), std::move(work), std::move(finish));
    const Napi::Promise promise = task->deferred_.Promise();
    task->Queue();
    return promise;
  }

 private:
  Task(Napi::Env env, std::vector<Napi::ObjectReference> keep, std::function<void()> work,
       std::function<Napi::Value(Napi::Env)> finish)
      : Napi::AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        keep_(std::move(keep)),
        work_(std::move(work)),
        finish_(std::move(finish)) {}

  void Execute() override {
    try {
      work_();
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  void OnOK() override {
    const Napi::HandleScope scope(Env());
    try {
      settle();
    } catch (const Napi::Error&) {
      // A worker thread that is being terminated runs no JavaScript any more: nobody is left to tell.
    }
  }

  void settle() {
    if (error_ == nullptr) {
      try {
        deferred_.Resolve(finish_(Env()));
        return;
      } catch (...) {
        error_ = std::current_exception();
      }
    }
    deferred_.Reject(to_error(Env(), error_).Value());
  }

  Napi::Promise::Deferred deferred_;
  std::vector<Napi::ObjectReference> keep_;
  std::function<void()> work_;
  std::function<Napi::Value(Napi::Env)> finish_;
  std::exception_ptr error_;
};

}  // namespace bindings
}  // namespace ptq4vm
