#include "engine/session.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "engine/thread_pool.h"

namespace ptq4vm {
namespace engine {

namespace {

// Index of the first image that holds a NaN or an infinity, −1 when all are finite.
int64_t first_bad_image(const float* data, int64_t images, int64_t per_image) {
  for (int64_t i = 0; i < images; i++) {
    const auto* bits = reinterpret_cast<const unsigned char*>(data + i * per_image);
    uint32_t bad = 0;
    for (int64_t k = 0; k < per_image; k++) {
      uint32_t v;
      std::memcpy(&v, bits + 4 * k, 4);
      bad |= static_cast<uint32_t>((v & 0x7f800000u) == 0x7f800000u);
    }
    if (bad != 0) return i;
  }
  return -1;
}

void copy_rows(char* to, int64_t to_stride, const char* from, int64_t from_stride, int64_t rows, int64_t bytes) {
  for (int64_t r = 0; r < rows; r++) std::memcpy(to + r * to_stride, from + r * from_stride, static_cast<size_t>(bytes));
}

}  // namespace

// One run: the plan, the tensors' places, and the loops over segments, images and ops.
class Session::Execution {
 public:
  Execution(Session& session, const Request& request, const Plan& plan)
      : session_(session), request_(request), plan_(plan), threads_(std::max(1, session.threads_)) {
    const size_t count = plan.tensors.size();
    places_.resize(count);
    for (size_t t = 0; t < count; t++) {
      const TensorPlan& p = plan.tensors[t];
      places_[t].row_stride = p.row_stride;
      places_[t].image_stride = p.image_stride;
      if (p.scope == Scope::batch) places_[t].data = session.batch_arena_.as<char>() + p.offset;
    }
    reserve_workers();
    nanoseconds_.assign(static_cast<size_t>(threads_), std::vector<double>(static_cast<size_t>(plan.end - plan.first), 0.0));
  }

  bool run() {
    bring_in();
    for (const Segment& segment : plan_.segments) {
      // Whole rounds of images go image by image, a thread each; what is left over (a batch of one,
      // an odd image) is computed by all threads together, op by op.
      const int32_t together = threads_ == 1 ? request_.images : request_.images / threads_ * threads_;
      if (together > 0) by_image(segment, together);
      for (int32_t i = together; i < request_.images; i++) by_item(segment, i);
      if (stopped()) return false;
    }
    bring_out();
    if (request_.op_nanoseconds != nullptr) {
      request_.op_nanoseconds->assign(static_cast<size_t>(plan_.end - plan_.first), 0.0);
      for (const auto& worker : nanoseconds_) {
        for (size_t i = 0; i < worker.size(); i++) (*request_.op_nanoseconds)[i] += worker[i];
      }
    }
    return true;
  }

 private:
  bool stopped() const { return request_.cancelled != nullptr && request_.cancelled->load(std::memory_order_relaxed) != 0; }

  // Tensors as they lie for image `image` and worker `worker`.
  void place(int32_t image, int worker, std::vector<Placement>* places) const {
    *places = places_;
    char* tile = session_.worker_arena_.as<char>() + static_cast<size_t>(worker) * worker_bytes_;
    for (size_t t = 0; t < places->size(); t++) {
      const TensorPlan& p = plan_.tensors[t];
      if (p.scope == Scope::tile) {
        (*places)[t].data = tile + p.offset;
      } else if ((*places)[t].data != nullptr) {
        (*places)[t].data += p.image_bytes * static_cast<size_t>(image);
      }
    }
  }

  void* scratch(int worker) const {
    return session_.worker_arena_.as<char>() + static_cast<size_t>(worker) * worker_bytes_ + plan_.tile_bytes;
  }

  void reserve_workers() {
    // Scratch depends on shapes alone, but a view without data means an absent operand: any address will do.
    std::vector<Placement> places = places_;
    for (Placement& p : places) p.data = reinterpret_cast<char*>(kBufferAlignment);
    const Frame frame{&session_.program_.tensors, places.data(), 1};
    size_t bytes = 0;
    for (int32_t i = plan_.first; i < plan_.end; i++) bytes = std::max(bytes, session_.nodes_[static_cast<size_t>(i)]->scratch(frame));
    worker_bytes_ = static_cast<size_t>(round_up(static_cast<int64_t>(plan_.tile_bytes + bytes), 4096));
    session_.worker_arena_.reserve(worker_bytes_ * static_cast<size_t>(threads_));
  }

  void run_items(const Node& node, const Frame& frame, Span span, int worker, int32_t op) {
    if (request_.op_nanoseconds == nullptr) {
      node.run(frame, span, scratch(worker));
      return;
    }
    const auto start = std::chrono::steady_clock::now();
    node.run(frame, span, scratch(worker));
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    nanoseconds_[static_cast<size_t>(worker)][static_cast<size_t>(op - plan_.first)] += took.count();
  }

  void by_image(const Segment& segment, int32_t images) {
    std::atomic<int32_t> next{0};
    run_parallel(threads_, [&](int worker) {
      std::vector<Placement> places;
      for (int32_t image = next++; image < images; image = next++) {
        place(image, worker, &places);
        const Frame frame{&session_.program_.tensors, places.data(), 1};
        for (int32_t i = segment.first; i < segment.end && !stopped(); i++) {
          const Node& node = *session_.nodes_[static_cast<size_t>(i)];
          run_items(node, frame, Span{0, node.items(frame)}, worker, i);
        }
      }
    });
  }

  void by_item(const Segment& segment, int32_t image) {
    std::vector<Placement> places;
    place(image, 0, &places);
    const Frame frame{&session_.program_.tensors, places.data(), 1};
    for (int32_t i = segment.first; i < segment.end && !stopped(); i++) {
      const Node& node = *session_.nodes_[static_cast<size_t>(i)];
      parallel_for(threads_, node.items(frame), [&](Span span, int worker) { run_items(node, frame, span, worker, i); });
    }
  }

  const TensorSpec& spec(int32_t tensor) const { return session_.program_.tensors[static_cast<size_t>(tensor)]; }

  void bring_in() {
    for (const Feed& feed : request_.feeds) {
      Placement& place = places_[static_cast<size_t>(feed.tensor)];
      const TensorSpec& s = spec(feed.tensor);
      if (s.dtype == DType::f32) {
        if (feed.tensor == session_.program_.input) {
          const int64_t bad = first_bad_image(static_cast<const float*>(feed.data), request_.images, int64_t{s.rows} * s.channels);
          if (bad >= 0) throw EngineError("ERR_DATA", "image " + std::to_string(bad) + " of the batch holds NaN or infinite values");
        }
        // Kernels take a feed as View<const float>; the frame holds one kind of pointer for all tensors.
        place.data = const_cast<char*>(static_cast<const char*>(feed.data));
      } else {
        copy_rows(place.data, place.row_stride, static_cast<const char*>(feed.data), s.channels,
                  int64_t{request_.images} * s.rows, s.channels);
      }
    }
    for (const Fetch& fetch : request_.fetches) {
      if (spec(fetch.tensor).dtype == DType::f32 && places_[static_cast<size_t>(fetch.tensor)].data == nullptr) {
        places_[static_cast<size_t>(fetch.tensor)].data = static_cast<char*>(fetch.data);
      }
    }
  }

  void bring_out() {
    for (const Fetch& fetch : request_.fetches) {
      const TensorSpec& s = spec(fetch.tensor);
      const Placement& place = places_[static_cast<size_t>(fetch.tensor)];
      if (place.data == fetch.data) continue;
      const int64_t element = s.dtype == DType::f32 ? 4 : 1;
      copy_rows(static_cast<char*>(fetch.data), s.channels * element, place.data, place.row_stride * element,
                int64_t{request_.images} * s.rows, s.channels * element);
    }
  }

  Session& session_;
  const Request& request_;
  const Plan& plan_;
  int threads_;
  size_t worker_bytes_ = 0;
  std::vector<Placement> places_;
  std::vector<std::vector<double>> nanoseconds_;
};

Session::Session(Program program, const OpTable& table, int threads)
    : program_(std::move(program)), table_(table), threads_(threads) {
  nodes_.reserve(program_.ops.size());
  for (OpSpec& op : program_.ops) {
    nodes_.push_back(lower_op(program_, op, table_));
    op.constants.clear();  // they pointed into JavaScript memory
  }
}

size_t Session::weight_bytes() const {
  size_t bytes = 0;
  for (const auto& node : nodes_) bytes += node->weight_bytes;
  return bytes;
}

bool Session::run(const Request& request) {
  const std::lock_guard<std::mutex> lock(running_);
  PlanRequest wanted{request.first, request.end, request.images, {}, {}};
  for (const Feed& f : request.feeds) wanted.feeds.push_back(f.tensor);
  for (const Fetch& f : request.fetches) wanted.fetches.push_back(f.tensor);
  const Plan plan = make_plan(program_, nodes_, wanted);
  batch_arena_.reserve(plan.batch_bytes);
  Execution execution(*this, request, plan);
  return execution.run();
}

}  // namespace engine
}  // namespace ptq4vm
