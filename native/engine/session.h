// A Program made ready on one backend: checked, weights packed, run again and again.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/buffer.h"
#include "engine/node.h"
#include "engine/plan.h"

namespace ptq4vm {
namespace engine {

struct Feed {
  int32_t tensor;
  const void* data;  // [images, rows, channels], dense
};

struct Fetch {
  int32_t tensor;
  void* data;  // as Feed
};

struct Request {
  int32_t images = 0;
  int32_t first = 0, end = 0;
  std::vector<Feed> feeds;
  std::vector<Fetch> fetches;
  const std::atomic<int32_t>* cancelled = nullptr;
  std::vector<double>* op_nanoseconds = nullptr;  // one per op of the range, summed over threads
};

class Session {
 public:
  // Throws EngineError; std::bad_alloc when memory is short.
  Session(Program program, const OpTable& table, int threads);

  const Program& program() const { return program_; }
  const OpTable& table() const { return table_; }
  int threads() const { return threads_; }
  size_t weight_bytes() const;

  // Runs ops [first, end) on the calling thread and the pool. Returns false when cancelled.
  // One run at a time: further callers wait.
  bool run(const Request& request);

  Plan plan(const PlanRequest& request) const { return make_plan(program_, nodes_, request); }

 private:
  class Execution;

  Program program_;
  const OpTable& table_;
  int threads_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::mutex running_;
  AlignedBuffer batch_arena_, worker_arena_;  // grown on demand, kept between runs
};

}  // namespace engine
}  // namespace ptq4vm
