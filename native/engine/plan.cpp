#include "engine/plan.h"

#include <algorithm>
#include <new>

namespace ptq4vm {
namespace engine {

namespace {

struct Lifetime {
  int32_t begin = -1;  // op that produces it; −1 = fed before the run
  int32_t end = -1;    // last op that touches it
};

struct Box {
  int32_t tensor;
  size_t bytes;
  int32_t begin, end;  // inclusive interval in which the memory is taken
};

// Greedy packing, largest first: each box goes to the lowest offset that no overlapping box takes.
// Returns the arena size.
size_t pack(std::vector<Box> boxes, std::vector<TensorPlan>* tensors) {
  std::stable_sort(boxes.begin(), boxes.end(), [](const Box& a, const Box& b) { return a.bytes > b.bytes; });
  std::vector<Box> placed;
  size_t total = 0;
  for (const Box& box : boxes) {
    std::vector<std::pair<size_t, size_t>> taken;
    for (const Box& other : placed) {
      if (other.end < box.begin || box.end < other.begin) continue;
      const size_t at = (*tensors)[static_cast<size_t>(other.tensor)].offset;
      taken.emplace_back(at, at + other.bytes);
    }
    std::sort(taken.begin(), taken.end());
    size_t offset = 0;
    for (const auto& [from, to] : taken) {
      if (offset + box.bytes <= from) break;
      offset = std::max(offset, to);
    }
    (*tensors)[static_cast<size_t>(box.tensor)].offset = offset;
    total = std::max(total, offset + box.bytes);
    placed.push_back(box);
  }
  return total;
}

constexpr size_t kMaxTensorBytes = size_t{1} << 46;

size_t padded(size_t bytes) { return static_cast<size_t>(round_up(static_cast<int64_t>(bytes), kBufferAlignment)); }

std::vector<Segment> cut(const Program& program, int32_t first, int32_t end) {
  std::vector<Segment> segments;
  int32_t from = first;
  for (const int32_t at : program.block_starts) {
    if (at <= from || at >= end) continue;
    segments.push_back({from, at});
    from = at;
  }
  if (from < end) segments.push_back({from, end});
  return segments;
}

}  // namespace

size_t tensor_bytes(const TensorSpec& spec, int32_t images) {
  const bool codes = spec.dtype == DType::u8;
  const int64_t row = codes ? round_up(spec.channels, kCodeRowAlignment) : int64_t{spec.channels} * 4;
  const size_t image = static_cast<size_t>(row) * static_cast<size_t>(spec.rows);  // below 2⁶³: both are below 2³¹
  if (image > kMaxTensorBytes / static_cast<size_t>(images)) throw std::bad_alloc();
  return image * static_cast<size_t>(images);
}

Plan make_plan(const Program& program, const std::vector<std::unique_ptr<Node>>& nodes, const PlanRequest& request) {
  const size_t count = program.tensors.size();
  Plan plan;
  plan.first = request.first;
  plan.end = request.end;
  plan.segments = cut(program, request.first, request.end);
  plan.tensors.resize(count);

  std::vector<Lifetime> life(count);
  std::vector<bool> known(count, false), fed(count, false), fetched(count, false);
  for (const int32_t t : request.feeds) known[static_cast<size_t>(t)] = fed[static_cast<size_t>(t)] = true;
  for (int32_t i = request.first; i < request.end; i++) {
    const Node& node = *nodes[static_cast<size_t>(i)];
    for (const int32_t t : node.reads) {
      if (!known[static_cast<size_t>(t)]) {
        fail("op '" + node.name + "' reads '" + program.tensors[static_cast<size_t>(t)].name + "', which nothing feeds or produces");
      }
      life[static_cast<size_t>(t)].end = i;
    }
    for (const int32_t t : node.writes) {
      if (fed[static_cast<size_t>(t)]) fail("op '" + node.name + "' would overwrite the fed tensor '" + program.tensors[static_cast<size_t>(t)].name + "'");
      if (!known[static_cast<size_t>(t)]) life[static_cast<size_t>(t)].begin = i;
      known[static_cast<size_t>(t)] = true;
      life[static_cast<size_t>(t)].end = std::max(life[static_cast<size_t>(t)].end, i);
    }
  }
  for (const int32_t t : request.fetches) {
    if (!known[static_cast<size_t>(t)]) fail("'" + program.tensors[static_cast<size_t>(t)].name + "' is not produced by the ops that run");
    fetched[static_cast<size_t>(t)] = true;
  }

  std::vector<Box> batch;
  std::vector<std::vector<Box>> tiles(plan.segments.size());
  const auto segment_of = [&](int32_t op) {
    for (size_t s = 0; s < plan.segments.size(); s++) {
      if (op < plan.segments[s].end) return static_cast<int32_t>(s);
    }
    return static_cast<int32_t>(plan.segments.size());
  };
  for (size_t t = 0; t < count; t++) {
    if (!known[t]) continue;
    const TensorSpec& spec = program.tensors[t];
    TensorPlan& p = plan.tensors[t];
    const bool codes = spec.dtype == DType::u8;
    p.row_stride = codes ? round_up(spec.channels, kCodeRowAlignment) : spec.channels;
    p.image_stride = p.row_stride * spec.rows;
    p.image_bytes = tensor_bytes(spec, 1);
    if ((fed[t] || fetched[t]) && !codes) {
      p.scope = Scope::external;
      continue;
    }
    const int32_t from = fed[t] ? 0 : segment_of(life[t].begin);
    const int32_t to = fetched[t] ? static_cast<int32_t>(plan.segments.size()) : segment_of(life[t].end);
    if (fed[t] || fetched[t] || from != to) {
      p.scope = Scope::batch;
      batch.push_back({static_cast<int32_t>(t), padded(tensor_bytes(spec, request.images)), from, to});
    } else {
      p.scope = Scope::tile;
      tiles[static_cast<size_t>(from)].push_back({static_cast<int32_t>(t), padded(p.image_bytes), life[t].begin, life[t].end});
    }
  }
  plan.batch_bytes = pack(std::move(batch), &plan.tensors);
  for (auto& boxes : tiles) plan.tile_bytes = std::max(plan.tile_bytes, pack(std::move(boxes), &plan.tensors));
  return plan;
}

}  // namespace engine
}  // namespace ptq4vm
