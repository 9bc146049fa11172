// Reads one op's description and checks it: every access states what it expects, every key must be used.
#pragma once
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "engine/buffer.h"
#include "engine/node.h"
#include "engine/program.h"

namespace ptq4vm {
namespace engine {

// Constants of one op, owned by its node.
using Store = std::shared_ptr<std::vector<AlignedBuffer>>;

class OpReader {
 public:
  OpReader(const Program& program, const OpSpec& op);

  // An operand of the given type; rows/channels < 0: any. A missing optional one has tensor −1.
  Ref input(const std::string& key, DType dtype, int32_t rows = -1, int32_t channels = -1);
  Ref optional_input(const std::string& key, DType dtype, int32_t rows = -1, int32_t channels = -1);
  Ref output(const std::string& key, DType dtype, int32_t rows = -1, int32_t channels = -1);
  Ref optional_output(const std::string& key, DType dtype, int32_t rows = -1, int32_t channels = -1);
  int32_t rows(const Ref& ref) const { return program_.tensors[static_cast<size_t>(ref.tensor)].rows; }

  // A constant's own copy. count == 0: any length.
  const float* floats(const std::string& key, size_t count);
  const float* optional_floats(const std::string& key, size_t count);
  const int32_t* ints(const std::string& key, size_t count);
  const int32_t* optional_ints(const std::string& key, size_t count);
  const int8_t* borrowed_codes(const std::string& key, size_t count);  // not copied: valid while lowering
  const float* borrowed_floats(const std::string& key, size_t count);
  size_t count(const std::string& key) const;  // 0 when absent
  bool has_constant(const std::string& key) const { return op_.constants.count(key) != 0; }
  void* store(size_t bytes);  // memory that lives as long as the node

  double number(const std::string& key);
  int32_t integer(const std::string& key, int32_t low, int32_t high);

  // A scan table: a permutation of 0…rows−1 with optional −1 entries; nullptr when absent (identity).
  const int32_t* table(const std::string& key, int32_t rows);

  // Throws for any key of the op that nobody asked for.
  void finish() const;
  [[noreturn]] void fail(const std::string& what) const;

  template <class Args>
  std::unique_ptr<Node> node(const OpEntry<Args>& entry, std::function<Args(const Frame&)> args) {
    finish();
    const Store kept = store_;
    auto made = std::make_unique<OpNode<Args>>(entry, [kept, args](const Frame& frame) { return args(frame); });
    made->name = op_.name;
    made->kind = op_.kind;
    made->reads = reads_;
    made->writes = writes_;
    for (const AlignedBuffer& b : *store_) made->weight_bytes += b.bytes();
    return made;
  }

 private:
  Ref operand(const std::map<std::string, Ref>& from, const std::string& key, DType dtype, int32_t rows, int32_t channels,
              bool optional, std::vector<int32_t>* log);
  const Constant* constant(const std::string& key, Constant::Type type, size_t count, bool optional);
  const void* copy(const Constant* constant, size_t element);
  void refuse_overlap() const;

  const Program& program_;
  const OpSpec& op_;
  Store store_ = std::make_shared<std::vector<AlignedBuffer>>();
  std::set<std::string> used_;
  std::vector<int32_t> reads_, writes_;
};

}  // namespace engine
}  // namespace ptq4vm
