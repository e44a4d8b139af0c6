// When a pool's threads or processes worked, for a profile.
#pragma once

#include <cstdint>

#include "waiting.h"

namespace dist_trainer {

// What one worker did of one job. Times are of the steady clock, which is Python's time.monotonic_ns, in all processes.
struct WorkSpan {
  int worker = 0;
  std::int64_t begin_ns = 0, end_ns = 0;
};

inline std::int64_t steady_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

}  // namespace dist_trainer
