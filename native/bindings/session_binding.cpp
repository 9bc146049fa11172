#include "bindings/session_binding.h"

#include <memory>
#include <new>

#include "bindings/cancel_token.h"
#include "bindings/kernels.h"
#include "bindings/task.h"
#include "engine/session.h"
#include "engine/thread_pool.h"
#include "platform/platform.h"

namespace ptq4vm {
namespace bindings {

namespace {

constexpr double kMaxImages = 1 << 24;

// Unwrapping any other object's internals would be memory corruption: CancelToken.of and this class
// are only reached through objects that lib/native made itself.
class SessionBinding final : public Napi::ObjectWrap<SessionBinding> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Session",
                       {InstanceMethod("run", &SessionBinding::run), InstanceMethod("plan", &SessionBinding::plan),
                        InstanceMethod("dispose", &SessionBinding::dispose), InstanceAccessor<&SessionBinding::isa>("isa"),
                        InstanceAccessor<&SessionBinding::threads>("threads")});
  }

  explicit SessionBinding(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SessionBinding>(info) {
    const Napi::Env env = info.Env();
    try {
      if (info.Length() < 2 || !info[0].IsObject() || !info[1].IsObject()) {
        throw Napi::TypeError::New(env, "Expected (program, options)");
      }
      const auto options = info[1].As<Napi::Object>();
      const Napi::Value isa = options.Get("isa");
      const std::string name = isa.IsString() ? isa.As<Napi::String>().Utf8Value() : "";
      const OpTable& table = kernels(name);
      int threads = static_cast<int>(get_number_or(options, "threads", 0));
      if (threads < 0 || threads > engine::kMaxThreads) throw Napi::RangeError::New(env, "Expected 0…256 for threads");
      if (threads == 0) threads = platform::physical_cores();
      session_ = std::make_shared<engine::Session>(to_program(info[0].As<Napi::Object>()), table, threads);
    } catch (...) {
      throw to_error(env, std::current_exception());
    }
  }

 private:
  engine::Session& session(Napi::Env env) const {
    if (session_ == nullptr) throw to_error(env, std::make_exception_ptr(engine::EngineError("ERR_DISPOSED", "the model has been disposed")));
    return *session_;
  }

  static int32_t tensor(const engine::Program& program, const std::string& name) {
    const int32_t index = program.find(name);
    if (index < 0) engine::fail("no tensor is named '" + name + "'");
    return index;
  }

  static size_t elements(const engine::TensorSpec& spec, int32_t images) {
    engine::tensor_bytes(spec, images);  // throws when the product below would not fit
    return static_cast<size_t>(images) * static_cast<size_t>(spec.rows) * static_cast<size_t>(spec.channels);
  }

  // By JavaScript's own constructor, which throws where memory is short or the array too long: N-API's ends the process.
  static Napi::Value new_array(Napi::Env env, const char* type, size_t count) {
    try {
      return env.Global().Get(type).As<Napi::Function>().New({Napi::Number::New(env, static_cast<double>(count))});
    } catch (const Napi::Error&) {
      throw std::bad_alloc();
    }
  }

  static int32_t image_count(const Napi::Env& env, double images) {
    if (!(images >= 1 && images <= kMaxImages) || images != static_cast<double>(static_cast<int32_t>(images))) {
      throw Napi::RangeError::New(env, "Expected a whole number of images, at least one");
    }
    return static_cast<int32_t>(images);
  }

  static const void* feed_data(const Napi::Value& value, const engine::TensorSpec& spec, int32_t images) {
    const size_t count = elements(spec, images);
    if (spec.dtype == engine::DType::f32) return get_floats(value, "feed '" + spec.name + "'", count).Data();
    if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array ||
        value.As<Napi::TypedArray>().ElementLength() != count) {
      throw Napi::TypeError::New(value.Env(), "Expected a Uint8Array of " + std::to_string(count) + " elements for feed '" + spec.name + "'");
    }
    return value.As<Napi::Uint8Array>().Data();
  }

  Napi::Value run(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    engine::Session& session = this->session(env);
    try {
      const auto options = info[0].As<Napi::Object>();
      const engine::Program& program = session.program();
      auto request = std::make_shared<engine::Request>();
      std::vector<Napi::ObjectReference> keep;
      request->images = image_count(env, get_number(options, "images"));
      const double ops = static_cast<double>(program.ops.size());
      const double first = get_number_or(options, "first", 0), end = get_number_or(options, "end", ops);
      if (!(first >= 0 && first <= end && end <= ops)) throw Napi::RangeError::New(env, "Expected a range of ops for first, end");
      request->first = static_cast<int32_t>(first);
      request->end = static_cast<int32_t>(end);

      const Napi::Object feeds = get_object(options, "feeds");
      const Napi::Array names = feeds.GetPropertyNames();
      for (uint32_t i = 0; i < names.Length(); i++) {
        const std::string name = names.Get(i).ToString().Utf8Value();
        const int32_t index = tensor(program, name);
        const Napi::Value value = feeds.Get(name);
        request->feeds.push_back({index, feed_data(value, program.tensors[static_cast<size_t>(index)], request->images)});
        keep.push_back(Napi::Persistent(value.As<Napi::Object>()));
      }
      Napi::Object outputs = Napi::Object::New(env);
      const Napi::Array fetches = get_object(options, "fetches").As<Napi::Array>();
      for (uint32_t i = 0; i < fetches.Length(); i++) {
        const std::string name = fetches.Get(i).ToString().Utf8Value();
        const int32_t index = tensor(program, name);
        const engine::TensorSpec& spec = program.tensors[static_cast<size_t>(index)];
        const size_t count = elements(spec, request->images);
        if (spec.dtype == engine::DType::f32) {
          const auto array = new_array(env, "Float32Array", count).As<Napi::Float32Array>();
          request->fetches.push_back({index, const_cast<float*>(array.Data())});
          outputs.Set(name, array);
        } else {
          const auto array = new_array(env, "Uint8Array", count).As<Napi::Uint8Array>();
          request->fetches.push_back({index, const_cast<uint8_t*>(array.Data())});
          outputs.Set(name, array);
        }
      }
      keep.push_back(Napi::Persistent(outputs));
      const CancelFlag cancel = CancelToken::of(options);
      request->cancelled = cancel.get();
      auto nanoseconds = std::make_shared<std::vector<double>>();
      if (get_bool(options, "profile")) request->op_nanoseconds = nanoseconds.get();

      const std::shared_ptr<engine::Session> owner = session_;
      const auto finished = std::make_shared<bool>(false);
      auto kept_outputs = std::make_shared<Napi::ObjectReference>(Napi::Persistent(outputs));
      return Task::start(
          env, std::move(keep), [owner, request, cancel, finished] { *finished = owner->run(*request); },
          [finished, kept_outputs, nanoseconds](Napi::Env at) -> Napi::Value {
            Napi::Object result = Napi::Object::New(at);
            result.Set("cancelled", !*finished);
            result.Set("outputs", *finished ? kept_outputs->Value() : Napi::Object::New(at));
            if (!nanoseconds->empty()) {
              auto times = Napi::Float64Array::New(at, nanoseconds->size());
              for (size_t i = 0; i < nanoseconds->size(); i++) times[i] = (*nanoseconds)[i];
              result.Set("opNanoseconds", times);
            }
            return result;
          });
    } catch (...) {
      throw to_error(env, std::current_exception());
    }
  }

  // The plan of a whole inference: input fed, every tensor that nothing reads fetched.
  Napi::Value plan(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    engine::Session& session = this->session(env);
    try {
      const engine::Program& program = session.program();
      engine::PlanRequest request{0, static_cast<int32_t>(program.ops.size()), 1, {program.input}, {}};
      request.images = image_count(env, info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : 1);
      const engine::Plan plan = session.plan(request);
      Napi::Object result = Napi::Object::New(env);
      result.Set("batchBytes", static_cast<double>(plan.batch_bytes));
      result.Set("tileBytes", static_cast<double>(plan.tile_bytes));
      result.Set("weightBytes", static_cast<double>(session.weight_bytes()));
      Napi::Array segments = Napi::Array::New(env);
      for (const engine::Segment& s : plan.segments) {
        Napi::Object segment = Napi::Object::New(env);
        segment.Set("first", s.first);
        segment.Set("end", s.end);
        segments.Set(segments.Length(), segment);
      }
      result.Set("segments", segments);
      Napi::Array tensors = Napi::Array::New(env);
      for (size_t t = 0; t < plan.tensors.size(); t++) {
        const engine::TensorPlan& p = plan.tensors[t];
        if (p.scope != engine::Scope::batch && p.scope != engine::Scope::tile) continue;
        const bool batch = p.scope == engine::Scope::batch;
        Napi::Object entry = Napi::Object::New(env);
        entry.Set("tensor", program.tensors[t].name);
        entry.Set("bytes", static_cast<double>(p.image_bytes * static_cast<size_t>(batch ? request.images : 1)));
        entry.Set("offset", static_cast<double>(p.offset));
        entry.Set("scope", batch ? "batch" : "tile");
        tensors.Set(tensors.Length(), entry);
      }
      result.Set("tensors", tensors);
      return result;
    } catch (...) {
      throw to_error(env, std::current_exception());
    }
  }

  void dispose(const Napi::CallbackInfo&) { session_.reset(); }
  Napi::Value isa(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), session(info.Env()).table().name); }
  Napi::Value threads(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), session(info.Env()).threads()); }

  std::shared_ptr<engine::Session> session_;
};

}  // namespace

Napi::Function define_session(Napi::Env env) { return SessionBinding::define(env); }

}  // namespace bindings
}  // namespace ptq4vm
