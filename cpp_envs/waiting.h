// What threads and processes have in common while they wait for work.
#pragma once

#include <sched.h>

#include <chrono>
#include <vector>

namespace dist_trainer {

using Clock = std::chrono::steady_clock;
inline constexpr std::chrono::microseconds kSpin{20};  // about what it takes to wake a thread that sleeps

// How many cores the calling thread may run on.
inline int allowed_cores() {
  std::vector<cpu_set_t> mask(16);  // of 1,024 cores each
  const std::size_t bytes = mask.size() * sizeof(cpu_set_t);
  if (sched_getaffinity(0, bytes, mask.data()) != 0) return 1;
  return CPU_COUNT_S(bytes, mask.data());
}

// Tells the processor that this is a loop that waits, so that it saves power and leaves room for its sibling.
inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Looks at a value for a while; true once it is no longer `old`.
template <class Atomic, class Value>
bool changes_within(std::chrono::microseconds time, const Atomic& value, Value old, void (*pause)() = relax) {
  for (const auto end = Clock::now() + time; Clock::now() < end; pause()) {
    if (value.load() != old) return true;
  }
  return false;
}

// Instead of relax(): who waits may have the core that another needs to get on. Waiting processes do.
inline void let_others_run() { sched_yield(); }

}  // namespace dist_trainer
