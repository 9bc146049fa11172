#include "engine/op_reader.h"

#include <cmath>
#include <iterator>

namespace ptq4vm {
namespace engine {

namespace {
const char* type_name(Constant::Type t) {
  switch (t) {
    case Constant::Type::f32: return "Float32Array";
    case Constant::Type::i32: return "Int32Array";
    case Constant::Type::i8: return "Int8Array";
    case Constant::Type::u8: return "Uint8Array";
  }
  return "?";
}
const char* type_name(DType t) { return t == DType::f32 ? "f32" : "u8"; }
}  // namespace

OpReader::OpReader(const Program& program, const OpSpec& op) : program_(program), op_(op) {}

void OpReader::fail(const std::string& what) const {
  engine::fail("op '" + op_.name + "' (" + op_.kind + "): " + what);
}

Ref OpReader::operand(const std::map<std::string, Ref>& from, const std::string& key, DType dtype, int32_t rows,
                      int32_t channels, bool optional, std::vector<int32_t>* log) {
  used_.insert("operand " + key);
  const auto it = from.find(key);
  if (it == from.end()) {
    if (optional) return Ref{-1, 0, 0};
    fail("operand '" + key + "' is missing");
  }
  const Ref ref = it->second;
  const TensorSpec& spec = program_.tensors[static_cast<size_t>(ref.tensor)];
  const std::string shape = "'" + spec.name + "' " + type_name(spec.dtype) + " [" + std::to_string(spec.rows) + ", " +
                            std::to_string(ref.channels) + "]";
  if (spec.dtype != dtype) fail("operand '" + key + "' must be " + type_name(dtype) + " but is " + shape);
  if (rows >= 0 && spec.rows != rows) fail("operand '" + key + "' must have " + std::to_string(rows) + " rows but is " + shape);
  if (channels >= 0 && ref.channels != channels) {
    fail("operand '" + key + "' must have " + std::to_string(channels) + " channels but is " + shape);
  }
  log->push_back(ref.tensor);
  return ref;
}

Ref OpReader::input(const std::string& key, DType dtype, int32_t rows, int32_t channels) {
  return operand(op_.inputs, key, dtype, rows, channels, false, &reads_);
}
Ref OpReader::optional_input(const std::string& key, DType dtype, int32_t rows, int32_t channels) {
  return operand(op_.inputs, key, dtype, rows, channels, true, &reads_);
}
Ref OpReader::output(const std::string& key, DType dtype, int32_t rows, int32_t channels) {
  return operand(op_.outputs, key, dtype, rows, channels, false, &writes_);
}
Ref OpReader::optional_output(const std::string& key, DType dtype, int32_t rows, int32_t channels) {
  return operand(op_.outputs, key, dtype, rows, channels, true, &writes_);
}

const Constant* OpReader::constant(const std::string& key, Constant::Type type, size_t count, bool optional) {
  used_.insert("constant " + key);
  const auto it = op_.constants.find(key);
  if (it == op_.constants.end()) {
    if (optional) return nullptr;
    fail("constant '" + key + "' is missing");
  }
  if (it->second.type != type) fail("constant '" + key + "' must be " + type_name(type) + " but is " + type_name(it->second.type));
  if (count > 0 && it->second.count != count) {
    fail("constant '" + key + "' must have " + std::to_string(count) + " elements but has " + std::to_string(it->second.count));
  }
  return &it->second;
}

void* OpReader::store(size_t bytes) {
  store_->emplace_back(bytes);
  return store_->back().as<void>();
}

const void* OpReader::copy(const Constant* constant, size_t element) {
  if (constant == nullptr) return nullptr;
  const size_t bytes = constant->count * element;
  void* to = store(bytes == 0 ? kBufferAlignment : bytes);
  std::memcpy(to, constant->data, bytes);
  return to;
}

const float* OpReader::floats(const std::string& key, size_t count) {
  return static_cast<const float*>(copy(constant(key, Constant::Type::f32, count, false), sizeof(float)));
}
const float* OpReader::optional_floats(const std::string& key, size_t count) {
  return static_cast<const float*>(copy(constant(key, Constant::Type::f32, count, true), sizeof(float)));
}
const int32_t* OpReader::ints(const std::string& key, size_t count) {
  return static_cast<const int32_t*>(copy(constant(key, Constant::Type::i32, count, false), sizeof(int32_t)));
}
const int32_t* OpReader::optional_ints(const std::string& key, size_t count) {
  return static_cast<const int32_t*>(copy(constant(key, Constant::Type::i32, count, true), sizeof(int32_t)));
}
const int8_t* OpReader::borrowed_codes(const std::string& key, size_t count) {
  return static_cast<const int8_t*>(constant(key, Constant::Type::i8, count, false)->data);
}
const float* OpReader::borrowed_floats(const std::string& key, size_t count) {
  return static_cast<const float*>(constant(key, Constant::Type::f32, count, false)->data);
}
size_t OpReader::count(const std::string& key) const {
  const auto it = op_.constants.find(key);
  return it == op_.constants.end() ? 0 : it->second.count;
}

double OpReader::number(const std::string& key) {
  used_.insert("attribute " + key);
  const auto it = op_.attributes.find(key);
  if (it == op_.attributes.end() || !std::isfinite(it->second)) fail("attribute '" + key + "' is missing or not a number");
  return it->second;
}

int32_t OpReader::integer(const std::string& key, int32_t low, int32_t high) {
  const double v = number(key);
  if (v != std::floor(v) || v < low || v > high) {
    fail("attribute '" + key + "' must be an integer in " + std::to_string(low) + "…" + std::to_string(high) + " but is " +
         std::to_string(v));
  }
  return static_cast<int32_t>(v);
}

const int32_t* OpReader::table(const std::string& key, int32_t rows) {
  const int32_t* t = optional_ints(key, static_cast<size_t>(rows));
  if (t == nullptr) return nullptr;
  std::vector<bool> seen(static_cast<size_t>(rows), false);
  for (int32_t i = 0; i < rows; i++) {
    if (t[i] == -1) continue;
    if (t[i] < 0 || t[i] >= rows || seen[static_cast<size_t>(t[i])]) fail("'" + key + "' is not a permutation of the rows");
    seen[static_cast<size_t>(t[i])] = true;
  }
  return t;
}

// Items of an op run in any order and on any thread: what one writes no other may read or write.
void OpReader::refuse_overlap() const {
  const auto overlap = [](const Ref& a, const Ref& b) {
    return a.tensor == b.tensor && a.from < b.from + b.channels && b.from < a.from + a.channels;
  };
  for (auto out = op_.outputs.begin(); out != op_.outputs.end(); ++out) {
    for (const auto& [key, in] : op_.inputs) {
      if (overlap(out->second, in)) fail("output '" + out->first + "' and input '" + key + "' overlap");
    }
    for (auto other = std::next(out); other != op_.outputs.end(); ++other) {
      if (overlap(out->second, other->second)) fail("outputs '" + out->first + "' and '" + other->first + "' overlap");
    }
  }
}

void OpReader::finish() const {
  refuse_overlap();
  for (const auto& [key, unused] : op_.inputs) if (!used_.count("operand " + key)) fail("unknown operand '" + key + "'");
  for (const auto& [key, unused] : op_.outputs) if (!used_.count("operand " + key)) fail("unknown operand '" + key + "'");
  for (const auto& [key, unused] : op_.constants) if (!used_.count("constant " + key)) fail("unknown constant '" + key + "'");
  for (const auto& [key, unused] : op_.attributes) if (!used_.count("attribute " + key)) fail("unknown attribute '" + key + "'");
}

}  // namespace engine
}  // namespace ptq4vm
