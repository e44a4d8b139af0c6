// A fixed set of threads that run one job at a time over chunks of an index range, and sleep in between.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace dist_trainer {

class Workers {
 public:
  using Job = std::function<void(int first, int last)>;

  // One thread means the caller's own: `start` then runs the job before it returns.
  explicit Workers(int threads) {
    try {
      for (int i = 0; i < threads && threads > 1; ++i) threads_.emplace_back([this] { work(); });
    } catch (...) {  // the system refuses one more
      stop();
      throw;
    }
  }
  ~Workers() { stop(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Ends the threads, after the job they may be in. Nothing can be started afterwards.
  void stop() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }

  int threads() const { return threads_.empty() ? 1 : static_cast<int>(threads_.size()); }

  // Runs job(first, last) over disjoint chunks that cover [0, size). A job must not depend on how it is chunked.
  void start(int size, Job job) {
    job_ = std::move(job);
    size_ = size;
    if (threads_.empty()) {
      run_chunk(0, size);
      return;
    }
    // A few chunks per thread even out environments of unequal cost; chunks stay large enough to hide the counter.
    chunk_ = std::max(1, size / (4 * threads()));
    next_.store(0, std::memory_order_relaxed);
    {
      std::lock_guard lock(mutex_);
      busy_ = threads();
      ++generation_;
    }
    wake_.notify_all();
  }

  // Blocks until the job is done; rethrows the first exception it threw.
  void wait() {
    if (!threads_.empty()) {
      std::unique_lock lock(mutex_);
      finished_.wait(lock, [this] { return busy_ == 0; });
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  void run_chunk(int first, int last) {
    try {
      job_(first, last);
    } catch (...) {
      std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }

  void work() {
    std::uint64_t seen = 0;
    while (true) {
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
        if (stopping_) return;
        seen = generation_;
      }
      for (int first; (first = next_.fetch_add(chunk_, std::memory_order_relaxed)) < size_;) {
        run_chunk(first, std::min(first + chunk_, size_));
      }
      std::lock_guard lock(mutex_);
      if (--busy_ == 0) finished_.notify_one();
    }
  }

  std::vector<std::thread> threads_;
  Job job_;
  int size_ = 0, chunk_ = 1;
  std::atomic<int> next_{0};
  std::mutex mutex_;
  std::condition_variable wake_, finished_;
  std::uint64_t generation_ = 0;
  int busy_ = 0;
  bool stopping_ = false;
  std::exception_ptr error_;
};

}  // namespace dist_trainer
