// What a pool is made from.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace dist_trainer {

using ParamValues = std::map<std::string, double>;

// How worker processes are kept.
struct ProcessConfig {
  std::string program;            // the executable built from worker.cpp
  double step_timeout_s = 5;      // a worker that does not get on for so long hangs, and is killed
  int max_restarts = 10;          // in a row; one more is an error
  std::int64_t memory_bytes = 0;  // that a worker may allocate beside the shared memory; 0: any amount
};

// For a worker process: the pool that it works for.
struct Attachment {
  int file;  // descriptor of the pool's memory
  int worker;
};

struct PoolConfig {
  std::string name;  // of the environment
  int num_envs = 1;
  int first_env = 0;  // global id of this pool's first environment
  std::uint64_t seed = 0;
  int workers = 1;           // threads, the caller's own among them, or processes
  std::vector<int> cores{};  // worker i is pinned to cores[i], a thread that calls excepted; empty: none is pinned
  bool check = true;         // observations and rewards
  std::optional<ProcessConfig> processes{};  // instead of threads
  std::optional<Attachment> attachment{};    // only in a worker process
  ParamValues params{};                      // of the environment; set by EnvEntry::make_pool
  std::string library{};                     // the shared library that it comes from (load_library.h), if any
};

// Throws std::invalid_argument that says what would be valid.
inline PoolConfig checked(PoolConfig config) {
  const char* workers = config.processes ? "processes" : "threads";
  if (config.num_envs < 1) throw std::invalid_argument("num_envs must be at least 1");
  if (config.first_env < 0) throw std::invalid_argument("first_env must be at least 0");
  if (config.workers < 1 || config.workers > 1024) {
    throw std::invalid_argument(std::string(workers) + " must be 1 to 1024");
  }
  if (!config.cores.empty() && config.cores.size() < static_cast<std::size_t>(config.workers)) {
    throw std::invalid_argument("cores must be one for each of the " + std::to_string(config.workers) + " " + workers +
                                ", or none; there are " + std::to_string(config.cores.size()));
  }
  for (const int core : config.cores) {
    if (core < 0) throw std::invalid_argument("cores: " + std::to_string(core) + " must be at least 0");
  }
  return config;
}

}  // namespace dist_trainer
