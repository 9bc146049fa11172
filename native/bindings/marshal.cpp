#include "bindings/marshal.h"

#include <cmath>
#include <new>
#include <unordered_map>

namespace ptq4vm {
namespace bindings {

using engine::Constant;
using engine::DType;
using engine::OpSpec;
using engine::Program;
using engine::Ref;
using engine::TensorSpec;

namespace {

constexpr double kMaxDim = 1 << 30;

int32_t to_int(const Napi::Value& value, const std::string& name, double low, double high) {
  if (!value.IsNumber()) throw Napi::TypeError::New(value.Env(), "Expected a number for " + name);
  const double v = value.As<Napi::Number>().DoubleValue();
  if (!(v >= low && v <= high) || v != std::floor(v)) {
    throw Napi::RangeError::New(value.Env(), "Expected an integer for " + name + " but received " + std::to_string(v));
  }
  return static_cast<int32_t>(v);
}

// A number as JavaScript shows it, more or less: whole ones without a fraction.
std::string shown(double v) {
  const bool whole = v == std::floor(v) && std::fabs(v) < 1e15;
  return whole ? std::to_string(static_cast<int64_t>(v)) : std::to_string(v);
}

using Names = std::unordered_map<std::string, int32_t>;

int32_t tensor_index(const Names& names, const std::string& name) {
  const auto it = names.find(name);
  if (it == names.end()) engine::fail("Program: no tensor is named '" + name + "'");
  return it->second;
}

Ref to_ref(const Program& program, const Names& names, const Napi::Object& value) {
  Ref ref{};
  ref.tensor = tensor_index(names, get_string(value, "tensor"));
  const TensorSpec& spec = program.tensors[static_cast<size_t>(ref.tensor)];
  const double from = get_number_or(value, "from", 0), channels = get_number_or(value, "channels", spec.channels - from);
  if (!(from >= 0 && channels >= 1 && from + channels <= spec.channels) || from != std::floor(from) || channels != std::floor(channels)) {
    engine::fail("Program: channels " + shown(from) + "+" + shown(channels) + " lie outside '" + spec.name + "'");
  }
  ref.from = static_cast<int32_t>(from);
  ref.channels = static_cast<int32_t>(channels);
  return ref;
}

Constant to_constant(const Napi::Value& value, const std::string& name) {
  if (value.IsTypedArray()) {
    const auto array = value.As<Napi::TypedArray>();
    const void* data = static_cast<const char*>(array.ArrayBuffer().Data()) + array.ByteOffset();
    const size_t count = array.ElementLength();
    switch (array.TypedArrayType()) {
      case napi_float32_array: return {Constant::Type::f32, data, count};
      case napi_int32_array: return {Constant::Type::i32, data, count};
      case napi_int8_array: return {Constant::Type::i8, data, count};
      case napi_uint8_array: return {Constant::Type::u8, data, count};
      default: break;
    }
  }
  throw Napi::TypeError::New(value.Env(), "Expected a Float32Array, Int32Array, Int8Array or Uint8Array for constant '" + name + "'");
}

// Own enumerable entries whose value is not undefined.
template <class Fn>
void each_entry(const Napi::Object& object, Fn fn) {
  const Napi::Array keys = object.GetPropertyNames();
  for (uint32_t i = 0; i < keys.Length(); i++) {
    const std::string key = keys.Get(i).ToString().Utf8Value();
    const Napi::Value value = object.Get(key);
    if (!value.IsUndefined()) fn(key, value);
  }
}

Napi::Object as_object(const Napi::Value& value, const std::string& name) {
  if (!value.IsObject()) throw Napi::TypeError::New(value.Env(), "Expected an object for " + name);
  return value.As<Napi::Object>();
}

Napi::Array get_array(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsArray()) throw Napi::TypeError::New(object.Env(), std::string("Expected an array for ") + key);
  return value.As<Napi::Array>();
}

OpSpec to_op(const Program& program, const Names& names, const Napi::Object& value) {
  OpSpec op;
  op.kind = get_string(value, "kind");
  op.name = get_string(value, "name");
  each_entry(get_object(value, "inputs"), [&](const std::string& key, const Napi::Value& v) {
    op.inputs.emplace(key, to_ref(program, names, as_object(v, key)));
  });
  each_entry(get_object(value, "outputs"), [&](const std::string& key, const Napi::Value& v) {
    op.outputs.emplace(key, to_ref(program, names, as_object(v, key)));
  });
  each_entry(get_object(value, "constants"), [&](const std::string& key, const Napi::Value& v) {
    op.constants.emplace(key, to_constant(v, key));
  });
  each_entry(get_object(value, "attributes"), [&](const std::string& key, const Napi::Value& v) {
    if (!v.IsNumber()) throw Napi::TypeError::New(v.Env(), "Expected a number for attribute '" + key + "'");
    op.attributes.emplace(key, v.As<Napi::Number>().DoubleValue());
  });
  return op;
}

}  // namespace

double get_number(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsNumber()) throw Napi::TypeError::New(object.Env(), std::string("Expected a number for ") + key);
  return value.As<Napi::Number>().DoubleValue();
}

double get_number_or(const Napi::Object& object, const char* key, double otherwise) {
  return object.Get(key).IsUndefined() ? otherwise : get_number(object, key);
}

bool get_bool(const Napi::Object& object, const char* key) { return object.Get(key).ToBoolean().Value(); }

std::string get_string(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsString()) throw Napi::TypeError::New(object.Env(), std::string("Expected a string for ") + key);
  return value.As<Napi::String>().Utf8Value();
}

Napi::Object get_object(const Napi::Object& object, const char* key) { return as_object(object.Get(key), key); }

Napi::Float32Array get_floats(const Napi::Value& value, const std::string& name, size_t count) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array) {
    throw Napi::TypeError::New(value.Env(), "Expected a Float32Array for " + name);
  }
  const auto array = value.As<Napi::Float32Array>();
  if (count != 0 && array.ElementLength() != count) {
    throw Napi::RangeError::New(value.Env(), "Expected " + std::to_string(count) + " elements for " + name + " but received " +
                                                 std::to_string(array.ElementLength()));
  }
  return array;
}

Program to_program(const Napi::Object& value) {
  Program program;
  Names names;
  const Napi::Array tensors = get_array(value, "tensors");
  for (uint32_t i = 0; i < tensors.Length(); i++) {
    const Napi::Object t = as_object(tensors.Get(i), "tensors");
    TensorSpec spec{get_string(t, "name"), DType::f32, 0, 0};
    const std::string dtype = get_string(t, "dtype");
    if (dtype != "f32" && dtype != "u8") engine::fail("Program: tensor '" + spec.name + "' has unknown dtype '" + dtype + "'");
    spec.dtype = dtype == "u8" ? DType::u8 : DType::f32;
    spec.rows = to_int(t.Get("rows"), "rows of '" + spec.name + "'", 1, kMaxDim);
    spec.channels = to_int(t.Get("channels"), "channels of '" + spec.name + "'", 1, kMaxDim);
    if (!names.emplace(spec.name, static_cast<int32_t>(i)).second) engine::fail("Program: two tensors are named '" + spec.name + "'");
    program.tensors.push_back(std::move(spec));
  }
  const Napi::Array ops = get_array(value, "ops");
  for (uint32_t i = 0; i < ops.Length(); i++) program.ops.push_back(to_op(program, names, as_object(ops.Get(i), "ops")));
  const Napi::Array blocks = get_array(value, "blocks");
  for (uint32_t i = 0; i < blocks.Length(); i++) {
    const Napi::Object block = as_object(blocks.Get(i), "blocks");
    for (const char* key : {"first", "end"}) {
      const int32_t at = to_int(block.Get(key), std::string("block ") + key, 0, program.ops.size());
      if (!program.block_starts.empty() && at < program.block_starts.back()) engine::fail("Program: blocks are not in order");
      if (program.block_starts.empty() || at != program.block_starts.back()) program.block_starts.push_back(at);
    }
  }
  program.input = tensor_index(names, get_string(value, "input"));
  return program;
}

Napi::Error to_error(Napi::Env env, const std::exception_ptr& error) {
  std::string code = "ERR_ENGINE", message;
  try {
    std::rethrow_exception(error);
  } catch (const engine::EngineError& e) {
    code = e.code();
    message = e.what();
  } catch (const Napi::Error& e) {
    return e;
  } catch (const std::bad_alloc&) {
    code = "ERR_OUT_OF_MEMORY";
    message = "out of memory: use a smaller batch, or fewer calibration samples";
  } catch (const std::exception& e) {
    message = e.what();
  }
  Napi::Error made = Napi::Error::New(env, message);
  made.Set("code", Napi::String::New(env, code));
  return made;
}

}  // namespace bindings
}  // namespace ptq4vm
