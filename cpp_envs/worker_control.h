// What a pool and its worker processes tell each other through the shared memory.
//
// Everything about an environment lies in that memory, so that a worker can die at any instruction and the next one
// goes on in its place. For that a worker notes what it is about to do before it does it. Only the dying process itself
// must not have reordered these notes: a compiler barrier is enough, since the kernel orders everything else.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "shared_memory.h"

namespace dist_trainer {

enum class Job : std::uint32_t { kReset, kStep, kObserve };

// What is done with one environment, in this order.
enum class Phase : std::uint32_t {
  kStep,     // its own step, before anything counts
  kFinish,   // its finished episodes are added to the statistics
  kReset,    // a new episode; what the step gave is complete
  kObserve,  // its observation
};

// One worker's.
struct alignas(64) WorkerSlot {
  static constexpr std::int64_t kNobody = -1;

  std::atomic<std::uint64_t> job{0};        // the number of the job that it is at
  std::atomic<std::uint64_t> completed{0};  // of the last one that it has done
  std::atomic<std::int64_t> note{kNobody};  // the environment in its hands, times 4, plus the phase
  std::atomic<int> stepped{0};              // those of its slice below this are through with their own part of the job
  std::atomic<std::uint32_t> ready{0};      // it has mapped the memory and made its environments
  std::atomic<std::uint32_t> asleep{0};
  std::atomic<std::int64_t> began_ns{0}, ended_ns{0};  // its latest job, while control.traced
  std::atomic<std::uint32_t> refused{0};               // an action was invalid, as `message` says: the caller's mistake
  char message[400]{};                                 // why it ends, or what was refused

  void take_note(int env, Phase phase) { write_note(std::int64_t{env} * 4 + static_cast<std::int64_t>(phase)); }
  void clear_note() { write_note(kNobody); }
  int env() const { return note < 0 ? -1 : static_cast<int>(note / 4); }
  Phase phase() const { return static_cast<Phase>(note & 3); }

  void say(const std::string& text) {
    const std::size_t length = std::min(text.size(), sizeof(message) - 1);
    std::memcpy(message, text.data(), length);
    message[length] = '\0';
  }

 private:
  void write_note(std::int64_t value) {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    note.store(value, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
};

// A pool's. The slots of its workers follow.
struct alignas(64) WorkerControl {
  std::atomic<std::uint64_t> job{0};  // number of the latest
  std::atomic<Job> kind{Job::kReset};
  std::atomic<std::int64_t> started{0};              // when it was: ticks of the steady clock
  std::atomic<std::uint32_t> traced{0};              // whether workers say when they worked
  alignas(64) std::atomic<std::uint32_t> signal{0};  // changes when there is a job
  alignas(64) std::atomic<std::uint32_t> news{0};    // changes when a job is done, or something is wrong
  alignas(64) std::atomic<std::uint32_t> caller_asleep{0};

  static std::size_t bytes(int workers) {
    return sizeof(WorkerControl) + sizeof(WorkerSlot) * static_cast<std::size_t>(workers);
  }
  WorkerSlot& slot(int worker) { return reinterpret_cast<WorkerSlot*>(this + 1)[worker]; }
};

// The environments [first, second) of a worker; whole cache lines of bytes where there are enough.
inline std::pair<int, int> slice_of(int worker, int workers, int envs) {
  const std::int64_t unit = envs / workers < 64 ? 1 : 64, units = (envs + unit - 1) / unit;
  const auto bound = [=](int i) { return static_cast<int>(std::min<std::int64_t>(units * i / workers * unit, envs)); };
  return {bound(worker), bound(worker + 1)};
}

}  // namespace dist_trainer
