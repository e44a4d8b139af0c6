// What went wrong with an environment, told so that it can be found again.
#pragma once

#include <cstdint>
#include <string>

namespace dist_trainer {

struct EnvFault {
  int env = -1;                   // global id of the environment; -1: a worker process ended while it was at none
  std::uint64_t step = 0;         // of the environment since the run began, all episodes together
  std::int64_t episode_step = 0;  // of its episode, whose result is lost
  std::string reason;
};

inline std::string text_of(const EnvFault& fault, const std::string& name, std::uint64_t seed) {
  if (fault.env < 0) return "no environment of " + name + " at work: " + fault.reason;
  return "environment " + std::to_string(fault.env) + " of " + name + ": " + fault.reason + " (seed " +
         std::to_string(seed) + ", step " + std::to_string(fault.step) + ", step " +
         std::to_string(fault.episode_step) + " of its episode)";
}

}  // namespace dist_trainer
