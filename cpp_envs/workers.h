// A fixed set of threads that run one job at a time over chunks of an index range, and sleep in between.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "waiting.h"
#include "work_span.h"

namespace dist_trainer {

// The caller is one of the threads: it helps while it waits, so that a job can be done before the others are awake.
// The range is cut into chunks, and each thread has a block of consecutive chunks, whose memory stays in its core's
// cache from job to job. Who is through with its own block takes chunks of the others'.
class Workers {
 public:
  using Job = std::function<void(int first, int last)>;  // one captured pointer is kept without an allocation

  // Jobs will run over [0, size). One thread means the caller's own: `start` then runs the job before it returns.
  // Thread i is pinned to cores[i], but for the caller, thread 0, who stays as it is; without cores none is pinned.
  // Throws std::system_error if a thread cannot be had or may not run on its core.
  Workers(int threads, int size, const std::vector<int>& cores)
      : size_(size), chunk_(chunk_size(threads, size)), blocks_(static_cast<std::size_t>(threads)) {
    may_spin_ = threads <= allowed_cores();
    const int chunks = (size + chunk_ - 1) / chunk_;
    for (int i = 0; i < threads; ++i) {
      const auto first = static_cast<int>(std::int64_t{chunks} * i / threads);
      const auto end = static_cast<int>(std::int64_t{chunks} * (i + 1) / threads);
      blocks_[static_cast<std::size_t>(i)].first = first;
      blocks_[static_cast<std::size_t>(i)].chunks = static_cast<std::uint64_t>(end - first);
    }
    chunks_ = static_cast<std::uint64_t>(chunks);
    try {
      for (int i = 1; i < threads; ++i) {
        threads_.emplace_back([this, i] { work(i); });
        if (!cores.empty()) pin(threads_.back(), cores[static_cast<std::size_t>(i)]);
      }
    } catch (...) {  // the system refuses one more
      stop();
      throw;
    }
  }
  ~Workers() { stop(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Ends the threads, after the chunks they may be in. Nothing can be started or waited for afterwards.
  void stop() {
    stopping_ = true;
    ++signal_;
    signal_.notify_all();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }

  // Runs job(first, last) over disjoint chunks that cover [0, size). A job must not depend on how it is chunked.
  void start(Job job) {
    job_ = std::move(job);
    if (threads_.empty()) {
      noted(0, [this] {
        run(0, size_);
        return true;
      });
      return;
    }
    started_ = Clock::now();
    ++jobs_;  // from here on there are chunks to take
    ++signal_;
    signal_.notify_all();
  }

  // Helps with the job and blocks until it is done; rethrows the first exception it threw.
  void wait() {
    if (!threads_.empty()) {
      take_chunks(0);
      const std::uint64_t all = jobs_ * chunks_;
      for (std::uint64_t done; (done = done_.load()) != all;) await_change(done_, done, may_spin_);
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  // Whether to note when each thread works on a job; call it between jobs. It costs nothing while it is off.
  void trace(bool on) { traced_ = on; }

  // Those since the last call. A thread may still be about to note its part of the latest job.
  std::vector<WorkSpan> take_spans() {
    const std::lock_guard lock(spans_mutex_);
    return std::exchange(spans_, {});
  }

 private:
  // The chunks of a thread. `taken` counts them over all jobs: with J jobs so far, chunks are left while it is below
  // J * chunks. It is never set back, so a thread that comes late takes chunks of the job that runs now, or none.
  struct alignas(64) Block {
    std::atomic<std::uint64_t> taken{0};
    int first = 0;
    std::uint64_t chunks = 0;
  };

  // A few chunks per thread even out environments of unequal cost; whole cache lines of bytes where there are enough.
  static int chunk_size(int threads, int size) {
    const int even = std::max(1, size / (8 * threads));
    return threads == 1 ? std::max(1, size) : even < 64 ? even : even / 64 * 64;
  }

  static void pin(std::thread& thread, int core) {
    std::vector<cpu_set_t> mask(static_cast<std::size_t>(core) / CPU_SETSIZE + 1);
    const std::size_t bytes = mask.size() * sizeof(cpu_set_t);
    CPU_SET_S(static_cast<std::size_t>(core), bytes, mask.data());
    if (const int error = pthread_setaffinity_np(thread.native_handle(), bytes, mask.data()); error != 0) {
      throw std::system_error(error, std::generic_category(), "cannot pin a thread to core " + std::to_string(core));
    }
  }

  // Returns once the value is no longer `old`: looks at it for a moment if it may, then sleeps.
  template <class T>
  static void await_change(const std::atomic<T>& value, T old, bool spin) {
    if (!spin || !changes_within(kSpin, value, old)) value.wait(old);
  }

  // The first index of a chunk of this block that nobody else has; -1 if there is none.
  int take(Block& block) {
    std::uint64_t taken = block.taken.load();
    while (taken < jobs_ * block.chunks) {
      if (block.taken.compare_exchange_weak(taken, taken + 1)) {
        return (block.first + static_cast<int>(taken % block.chunks)) * chunk_;
      }
    }
    return -1;
  }

  void take_chunks(int own) {
    noted(own, [this, own] { return take_any_chunks(own); });
  }

  // `work` says whether there was any.
  void noted(int thread, auto&& work) {
    if (!traced_.load(std::memory_order_relaxed)) {
      work();
      return;
    }
    const std::int64_t began = steady_ns();
    if (!work()) return;
    const std::lock_guard lock(spans_mutex_);
    spans_.push_back({thread, began, steady_ns()});
  }

  // Its own block first, then the others'. True if there was a chunk.
  bool take_any_chunks(int own) {
    const std::size_t count = blocks_.size();
    bool any = false;
    for (std::size_t i = 0; i < count; ++i) {
      Block& block = blocks_[(static_cast<std::size_t>(own) + i) % count];
      for (int first; !stopping_ && (first = take(block)) >= 0;) {
        run(first, std::min(first + chunk_, size_));
        any = true;
        if (++done_ % chunks_ == 0) done_.notify_one();
      }
    }
    return any;
  }

  void run(int first, int last) {
    try {
      job_(first, last);
    } catch (...) {
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }

  // Spins only if the last job came soon enough to be caught by it: not while a policy thinks.
  void work(int own) {
    bool spin = may_spin_;
    for (std::uint32_t seen = 0; !stopping_; seen = signal_) {
      take_chunks(own);
      const auto idle_since = Clock::now();
      await_change(signal_, seen, spin);
      spin = may_spin_ && started_.load() - idle_since < kSpin;
    }
  }

  const int size_, chunk_;
  std::uint64_t chunks_ = 0;  // of all blocks together
  bool may_spin_ = false;     // there is a core for each thread
  std::vector<Block> blocks_;
  Job job_;
  alignas(64) std::atomic<std::uint64_t> jobs_{0};
  std::atomic<Clock::time_point> started_{Clock::time_point{}};  // when the latest job was
  std::atomic<std::uint32_t> signal_{0};                         // changes when there is something new
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<std::uint64_t> done_{0};  // chunks of all jobs so far
  std::mutex error_mutex_;
  std::exception_ptr error_;
  std::atomic<bool> traced_{false};
  std::mutex spans_mutex_;
  std::vector<WorkSpan> spans_;       // guarded
  std::vector<std::thread> threads_;  // last: they use all of the above
};

}  // namespace dist_trainer
