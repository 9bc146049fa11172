// From JavaScript values to engine values and back. The only files that see N-API are in this folder.
#pragma once
#define NAPI_VERSION 8
#include <napi.h>

#include <exception>
#include <string>

#include "engine/program.h"

namespace ptq4vm {
namespace bindings {

// lib/program/ir.ts Program → engine::Program. Constants stay in JavaScript memory: `value` must live
// until the Session has been made. Throws Napi::TypeError for malformed values, EngineError for bad references.
engine::Program to_program(const Napi::Object& value);

// A JavaScript Error that carries the engine's code (lib/native/session.ts makes a Ptq4vmError of it).
Napi::Error to_error(Napi::Env env, const std::exception_ptr& error);

// Object property helpers; errors name the property.
double get_number(const Napi::Object& object, const char* key);
double get_number_or(const Napi::Object& object, const char* key, double otherwise);
bool get_bool(const Napi::Object& object, const char* key);
std::string get_string(const Napi::Object& object, const char* key);
Napi::Object get_object(const Napi::Object& object, const char* key);

// A Float32Array of exactly `count` elements (count 0: any).
Napi::Float32Array get_floats(const Napi::Value& value, const std::string& name, size_t count);

}  // namespace bindings
}  // namespace ptq4vm
