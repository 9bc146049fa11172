// The engine's one exception: a code of lib/errors.ts and a message. Bindings turn it into a Ptq4vmError.
#pragma once
#include <stdexcept>
#include <string>

namespace ptq4vm {
namespace engine {

class EngineError : public std::runtime_error {
 public:
  EngineError(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const { return code_; }

 private:
  const char* code_;
};

[[noreturn]] inline void fail(const std::string& message) { throw EngineError("ERR_ENGINE", message); }

}  // namespace engine
}  // namespace ptq4vm
