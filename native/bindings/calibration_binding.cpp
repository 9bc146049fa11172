#include "bindings/calibration_binding.h"

#include <memory>

#include "bindings/cancel_token.h"
#include "bindings/kernels.h"
#include "bindings/task.h"
#include "engine/buffer.h"
#include "engine/thread_pool.h"
#include "ptq4vm/arith.h"
#include "ptq4vm/calibration.h"

namespace ptq4vm {
namespace bindings {

namespace {

constexpr double kMaxDim = 1 << 30;

int32_t get_size(const Napi::Object& object, const char* key, double low = 1, double high = kMaxDim) {
  const double v = get_number(object, key);
  if (!(v >= low && v <= high) || v != static_cast<double>(static_cast<int64_t>(v))) {
    throw Napi::RangeError::New(object.Env(), std::string("Expected a size for ") + key);
  }
  return static_cast<int32_t>(v);
}

int32_t get_threads(const Napi::Object& options) { return get_size(options, "threads", 1, engine::kMaxThreads); }

// Float32Array `key` of `count` elements, or nullptr when it is undefined; kept alive by `keep`.
const float* optional_floats(const Napi::Object& options, const char* key, size_t count, std::vector<Napi::ObjectReference>* keep) {
  const Napi::Value value = options.Get(key);
  if (value.IsUndefined()) return nullptr;
  const Napi::Float32Array array = get_floats(value, key, count);
  keep->push_back(Napi::Persistent(value.As<Napi::Object>()));
  return array.Data();
}

View<const float> get_sample(const Napi::Object& sample, std::vector<Napi::ObjectReference>* keep) {
  View<const float> view{};
  view.images = get_size(sample, "images");
  view.rows = get_size(sample, "rows");
  const int32_t width = get_size(sample, "width"), from = get_size(sample, "from", 0);
  view.channels = get_size(sample, "channels");
  if (from > width - view.channels) throw Napi::RangeError::New(sample.Env(), "Expected from + channels within width");
  view.row_stride = width;
  view.image_stride = static_cast<int64_t>(width) * view.rows;
  const Napi::Value data = sample.Get("data");
  view.data = get_floats(data, "data", static_cast<size_t>(view.images) * static_cast<size_t>(view.image_stride)).Data() + from;
  keep->push_back(Napi::Persistent(data.As<Napi::Object>()));
  return view;
}

// Runs all items of an op on up to `threads` threads, each with its own scratch memory.
template <class Args>
void run_op(const OpEntry<Args>& entry, const Args& args, int threads) {
  const size_t bytes = static_cast<size_t>(round_up(static_cast<int64_t>(entry.scratch(args)), kBufferAlignment));
  const engine::AlignedBuffer scratch(bytes * static_cast<size_t>(threads));
  engine::parallel_for(threads, entry.items(args), [&](Span span, int worker) {
    entry.run(args, span, scratch.as<char>() + bytes * static_cast<size_t>(worker));
  });
}

const volatile int32_t* flag_of(const CancelFlag& cancel) {
  static_assert(sizeof(std::atomic<int32_t>) == sizeof(int32_t), "the flag is read as a plain int");
  return reinterpret_cast<const volatile int32_t*>(cancel.get());
}

struct Steps {
  std::vector<float> scale;
  std::vector<uint8_t> zero, grid_index;
};

Napi::Value steps_result(Napi::Env env, const Steps& steps) {
  Napi::Object result = Napi::Object::New(env);
  auto scale = Napi::Float32Array::New(env, steps.scale.size());
  auto index = Napi::Uint8Array::New(env, steps.grid_index.size());
  for (size_t i = 0; i < steps.scale.size(); i++) scale[i] = steps.scale[i];
  for (size_t i = 0; i < steps.grid_index.size(); i++) index[i] = steps.grid_index[i];
  result.Set("scale", scale);
  result.Set("gridIndex", index);
  if (!steps.zero.empty()) {
    auto zero = Napi::Uint8Array::New(env, steps.zero.size());
    for (size_t i = 0; i < steps.zero.size(); i++) zero[i] = steps.zero[i];
    result.Set("zero", zero);
  }
  return result;
}

template <class Fn>
Napi::Value guarded(const Napi::CallbackInfo& info, Fn fn) {
  try {
    return fn();
  } catch (...) {
    throw to_error(info.Env(), std::current_exception());
  }
}

Napi::Value abs_max(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    std::vector<Napi::ObjectReference> keep;
    const View<const float> x = get_sample(info[0].As<Napi::Object>(), &keep);
    const int threads = info[1].IsNumber() ? info[1].As<Napi::Number>().Int32Value() : 0;
    if (threads < 1 || threads > engine::kMaxThreads) throw Napi::RangeError::New(info.Env(), "Expected 1…256 for threads");
    const OpTable* table = &kernels();
    auto result = std::make_shared<std::vector<float>>(static_cast<size_t>(x.channels));
    return Task::start(
        info.Env(), std::move(keep), [=] { run_op(table->abs_max, AbsMaxArgs{x, result->data()}, threads); },
        [result](Napi::Env env) -> Napi::Value {
          auto array = Napi::Float32Array::New(env, result->size());
          for (size_t i = 0; i < result->size(); i++) array[i] = (*result)[i];
          return array;
        });
  });
}

Napi::Value activation_steps(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    std::vector<Napi::ObjectReference> keep;
    const View<const float> x = get_sample(info[0].As<Napi::Object>(), &keep);
    const auto options = info[1].As<Napi::Object>();
    const int32_t bits = get_size(options, "bits", 2, 8), grid = get_bool(options, "grid") ? 1 : 0;
    const bool per_token = get_bool(options, "perToken");
    const int threads = get_threads(options);
    const float* smooth = optional_floats(options, "smooth", static_cast<size_t>(x.channels), &keep);
    const CancelFlag cancel = CancelToken::of(options);
    const OpTable* table = &kernels();
    const size_t count = per_token ? static_cast<size_t>(x.rows) : 1;
    auto steps = std::make_shared<Steps>(Steps{std::vector<float>(count), std::vector<uint8_t>(count), std::vector<uint8_t>(count)});
    return Task::start(
        info.Env(), std::move(keep),
        [=] {
          if (per_token) {
            run_op(table->activation_steps,
                   ActivationStepsArgs{x, smooth, bits, grid, steps->scale.data(), steps->zero.data(), steps->grid_index.data(), flag_of(cancel)},
                   threads);
            return;
          }
          const engine::AlignedBuffer workspace(calibration::tensor_steps_workspace(x));
          calibration::tensor_steps(*table, x, smooth, bits, grid, workspace.as<void>(), flag_of(cancel), steps->scale.data(),
                                    steps->zero.data(), steps->grid_index.data(),
                                    [&](const auto& entry, const auto& args) { run_op(entry, args, threads); });
        },
        [steps](Napi::Env env) { return steps_result(env, *steps); });
  });
}

Napi::Value weight_steps(const Napi::CallbackInfo& info) {
  return guarded(info, [&] {
    std::vector<Napi::ObjectReference> keep;
    const auto options = info[1].As<Napi::Object>();
    WeightStepsArgs args{};
    args.out = get_size(options, "out");
    args.in = get_size(options, "in");
    args.bits = get_size(options, "bits", 2, 8);
    args.grid = get_bool(options, "grid") ? 1 : 0;
    args.weight = get_floats(info[0], "weight", static_cast<size_t>(args.out) * static_cast<size_t>(args.in)).Data();
    keep.push_back(Napi::Persistent(info[0].As<Napi::Object>()));
    args.smooth = optional_floats(options, "smooth", static_cast<size_t>(args.in), &keep);
    const int threads = get_threads(options);
    const CancelFlag cancel = CancelToken::of(options);
    args.cancelled = flag_of(cancel);
    const OpTable* table = &kernels();
    const size_t count = static_cast<size_t>(args.out);
    auto steps = std::make_shared<Steps>(Steps{std::vector<float>(count), {}, std::vector<uint8_t>(count)});
    args.scale = steps->scale.data();
    args.grid_index = steps->grid_index.data();
    return Task::start(
        info.Env(), std::move(keep), [=, held = cancel] { run_op(table->weight_steps, args, threads); },
        [steps](Napi::Env env) { return steps_result(env, *steps); });
  });
}

Napi::Value quantize_weight(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    std::vector<Napi::ObjectReference> keep;
    const auto options = info[1].As<Napi::Object>();
    const int32_t out = get_size(options, "out"), in = get_size(options, "in"), bits = get_size(options, "bits", 2, 8);
    const float* weight = get_floats(info[0], "weight", static_cast<size_t>(out) * static_cast<size_t>(in)).Data();
    const float* scale = get_floats(options.Get("scale"), "scale", static_cast<size_t>(out)).Data();
    const float* smooth = optional_floats(options, "smooth", static_cast<size_t>(in), &keep);
    const float qmax = static_cast<float>((1 << (bits - 1)) - 1);
    auto codes = Napi::Int8Array::New(info.Env(), static_cast<size_t>(out) * static_cast<size_t>(in));
    int8_t* to = codes.Data();
    for (int32_t o = 0; o < out; o++) {
      for (int32_t k = 0; k < in; k++) {
        const size_t i = static_cast<size_t>(o) * static_cast<size_t>(in) + static_cast<size_t>(k);
        to[i] = static_cast<int8_t>(arith::weight_code(weight[i], smooth == nullptr ? 1.0f : smooth[k], scale[o], qmax));
      }
    }
    return codes;
  });
}

}  // namespace

Napi::Object calibration(Napi::Env env) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("absMax", Napi::Function::New(env, abs_max, "absMax"));
  o.Set("activationSteps", Napi::Function::New(env, activation_steps, "activationSteps"));
  o.Set("weightSteps", Napi::Function::New(env, weight_steps, "weightSteps"));
  o.Set("quantizeWeight", Napi::Function::New(env, quantize_weight, "quantizeWeight"));
  return o;
}

}  // namespace bindings
}  // namespace ptq4vm
