#include "engine/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace ptq4vm {
namespace engine {

namespace {

// How long an idle worker looks for the next job before it sleeps. Consecutive ops of a batch-1 run
// follow each other within microseconds; waking a sleeping thread costs tens of them.
constexpr int kSpins = 4000;

struct Job {
  const std::function<void(int)>* fn;
  int wanted;       // participants still to be admitted
  int next_id = 1;  // 0 is the caller
  int running = 0;
};

class Pool {
 public:
  static Pool& instance() {
    // Never destroyed: workers may outlive static destruction when the process exits under them.
    static Pool* pool = new Pool();
    return *pool;
  }

  void run(int threads, const std::function<void(int)>& fn) {
    auto job = std::make_shared<Job>();
    job->fn = &fn;
    job->wanted = threads - 1;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(workers_) < threads - 1) {
        std::thread([this] { work(); }).detach();
        workers_++;
      }
      jobs_.push_back(job);
      pending_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    fn(0);
    std::unique_lock<std::mutex> lock(mutex_);
    withdraw(job);
    done_.wait(lock, [&] { return job->running == 0; });
  }

 private:
  // No further participants; called with the mutex held.
  void withdraw(const std::shared_ptr<Job>& job) {
    const auto it = std::find(jobs_.begin(), jobs_.end(), job);
    if (it == jobs_.end()) return;
    jobs_.erase(it);
    pending_.fetch_sub(1, std::memory_order_release);
  }

  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      if (jobs_.empty()) {
        lock.unlock();
        for (int i = 0; i < kSpins && pending_.load(std::memory_order_acquire) == 0; i++) std::this_thread::yield();
        lock.lock();
        wake_.wait(lock, [&] { return !jobs_.empty(); });
      }
      const std::shared_ptr<Job> job = jobs_.front();
      const int id = job->next_id++;
      job->running++;
      if (--job->wanted == 0) withdraw(job);
      lock.unlock();
      (*job->fn)(id);
      lock.lock();
      if (--job->running == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::deque<std::shared_ptr<Job>> jobs_;
  std::atomic<int> pending_{0};
  size_t workers_ = 0;
};

}  // namespace

void run_parallel(int threads, const std::function<void(int)>& fn) {
  if (threads <= 1) {
    fn(0);
    return;
  }
  Pool::instance().run(std::min(threads, kMaxThreads), fn);
}

void parallel_for(int threads, int64_t items, const std::function<void(Span, int)>& fn) {
  if (items <= 0) return;
  // A few grabs per thread: small enough to balance, large enough to be cheap.
  const int64_t grain = std::max<int64_t>(1, items / (4 * std::max(1, threads)));
  const int useful = static_cast<int>(std::min<int64_t>(threads, ceil_div(items, grain)));
  std::atomic<int64_t> next{0};
  run_parallel(useful, [&](int participant) {
    for (int64_t begin = next.fetch_add(grain); begin < items; begin = next.fetch_add(grain)) {
      fn(Span{begin, std::min(items, begin + grain)}, participant);
    }
  });
}

}  // namespace engine
}  // namespace ptq4vm
