// A checked op, bound to its constants, ready to run on any tile of images.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/program.h"
#include "ptq4vm/ops.h"

namespace ptq4vm {
namespace engine {

// Where a tensor lies for the images of one tile; strides in elements.
struct Placement {
  char* data = nullptr;
  int64_t image_stride = 0;
  int64_t row_stride = 0;
};

// The tensors as one worker sees them while it computes `images` consecutive images.
struct Frame {
  const std::vector<TensorSpec>* specs;
  const Placement* tensors;
  int32_t images;

  template <class T>
  View<T> view(const Ref& ref) const {
    const Placement& p = tensors[ref.tensor];
    return View<T>{reinterpret_cast<T*>(p.data) + ref.from,     p.image_stride, p.row_stride, images,
                   (*specs)[static_cast<size_t>(ref.tensor)].rows, ref.channels};
  }
};

class Node {
 public:
  virtual ~Node() = default;
  virtual int64_t items(const Frame& frame) const = 0;
  virtual size_t scratch(const Frame& frame) const = 0;
  virtual void run(const Frame& frame, Span span, void* scratch) const = 0;

  std::string name;
  std::string kind;
  std::vector<int32_t> reads;   // tensor indices
  std::vector<int32_t> writes;
  size_t weight_bytes = 0;
};

// A node is an entry of the backend's op table and a recipe that fills its arguments for a frame.
template <class Args>
class OpNode final : public Node {
 public:
  OpNode(const OpEntry<Args>& entry, std::function<Args(const Frame&)> args) : entry_(entry), args_(std::move(args)) {}
  int64_t items(const Frame& frame) const override { return entry_.items(args_(frame)); }
  size_t scratch(const Frame& frame) const override { return entry_.scratch(args_(frame)); }
  void run(const Frame& frame, Span span, void* scratch) const override { entry_.run(args_(frame), span, scratch); }

 private:
  OpEntry<Args> entry_;
  std::function<Args(const Frame&)> args_;
};

// Checks an op against its tensors and constants, packs its weights for the backend and returns the
// node. Throws EngineError naming op, shapes and what was expected.
std::unique_ptr<Node> lower_op(const Program& program, const OpSpec& op, const OpTable& table);

}  // namespace engine
}  // namespace ptq4vm
