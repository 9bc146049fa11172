// The Program as it arrives from JavaScript (lib/program/ir.ts), in plain C++ and not yet checked.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/error.h"

namespace ptq4vm {
namespace engine {

enum class DType { f32, u8 };

struct TensorSpec {
  std::string name;
  DType dtype;
  int32_t rows;
  int32_t channels;
};

// Channels [from, from + channels) of a tensor.
struct Ref {
  int32_t tensor;
  int32_t from;
  int32_t channels;
};

// A typed array; `data` points into JavaScript memory and is valid only while a Session is made.
struct Constant {
  enum class Type { f32, i32, i8, u8 } type;
  const void* data;
  size_t count;
};

struct OpSpec {
  std::string kind;
  std::string name;
  std::map<std::string, Ref> inputs;
  std::map<std::string, Ref> outputs;
  std::map<std::string, Constant> constants;
  std::map<std::string, double> attributes;
};

struct Program {
  std::vector<TensorSpec> tensors;
  std::vector<OpSpec> ops;
  std::vector<int32_t> block_starts;  // op indices where a block begins or ends, ascending
  int32_t input = -1;                 // the picture: checked for NaN and infinity when it is fed

  int32_t find(const std::string& name) const {
    for (size_t i = 0; i < tensors.size(); i++) {
      if (tensors[i].name == name) return static_cast<int32_t>(i);
    }
    return -1;
  }
};

}  // namespace engine
}  // namespace ptq4vm
