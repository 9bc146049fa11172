// Memory plan of one run: which tensors hold the whole batch, which only one image, and where.
//
// A run is cut into segments at block boundaries. A tensor that lives inside one segment is a tile
// tensor: every worker computes the segment image by image in its own small arena, so that a block's
// intermediates stay in cache. Tensors that cross segments hold all images of the batch.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/node.h"

namespace ptq4vm {
namespace engine {

// Bytes of a tensor for `images` images as it lies in memory (rows of codes are padded). Throws std::bad_alloc when
// no machine could hold it, so that sizes computed from it cannot overflow.
size_t tensor_bytes(const TensorSpec& spec, int32_t images);

struct Segment {
  int32_t first;
  int32_t end;
};

enum class Scope {
  unused,
  external,  // the caller's own memory: float32 feeds and fetches
  batch,
  tile,
};

struct TensorPlan {
  Scope scope = Scope::unused;
  int64_t row_stride = 0;       // elements
  int64_t image_stride = 0;     // elements
  size_t image_bytes = 0;
  size_t offset = 0;            // bytes into the batch arena or into a worker's tile arena
};

struct Plan {
  int32_t first = 0, end = 0;
  std::vector<Segment> segments;
  std::vector<TensorPlan> tensors;
  size_t batch_bytes = 0;  // for all images
  size_t tile_bytes = 0;   // per worker
};

struct PlanRequest {
  int32_t first, end;
  int32_t images;
  std::vector<int32_t> feeds;
  std::vector<int32_t> fetches;
};

// Throws EngineError when an op reads what nobody feeds or produces, or a fetch is never produced.
Plan make_plan(const Program& program, const std::vector<std::unique_ptr<Node>>& nodes, const PlanRequest& request);

}  // namespace engine
}  // namespace ptq4vm
