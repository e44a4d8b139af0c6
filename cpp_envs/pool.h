// The pool: N environments behind one set of buffers, stepped together by worker threads.
//
// Buffers are structures of arrays over agent rows (row = environment * num_agents + agent), in one anonymous
// shared-memory segment that torch sees without a copy. One cycle is
//   caller reads observations and noise, writes actions -> send() -> recv() -> caller reads rewards, terminated,
//   truncated, the next observations, and, in rows that were truncated, final_observations.
// Everything random is keyed by (seed, global environment id, step): results depend neither on the number of threads
// nor on how the global set of environments is cut over pools.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "env.h"
#include "noise.h"
#include "shared_memory.h"
#include "workers.h"

namespace dist_trainer {

struct PoolConfig {
  std::string name;  // of the environment, for messages
  int num_envs = 1;
  int first_env = 0;  // global id of this pool's first environment
  std::uint64_t seed = 0;
  int threads = 1;           // the caller's own among them
  std::vector<int> cores{};  // thread i is pinned to cores[i], the caller excepted; empty: none is pinned
};

// Per agent: the episode in progress. Part of a snapshot.
struct Episode {
  double return_sum = 0;
  std::int64_t length = 0;
};

// Everything about the pool that does not depend on the environment's type.
class Pool {
 public:
  Pool(PoolConfig config, Spec spec, std::size_t state_bytes, std::size_t observation_item_bytes)
      : config_(checked(std::move(config))),
        spec_(std::move(spec)),
        state_bytes_(state_bytes),
        observation_bytes_(observation_item_bytes * static_cast<std::size_t>(spec_.observation_size())),
        workers_(config_.threads, config_.num_envs, config_.cores) {
    const auto envs = static_cast<std::size_t>(config_.num_envs), agents = static_cast<std::size_t>(rows());
    const auto components = static_cast<std::size_t>(spec_.action.components());
    std::size_t bytes = 0;
    const auto reserve = [&bytes](std::size_t size) {  // 64-byte alignment: cache lines are not shared by buffers
      const std::size_t offset = bytes;
      bytes += round_up(size, 64);
      return offset;
    };
    const auto end_pages = [&bytes] { bytes = round_up(bytes, page_bytes()); };
    // What the policy reads after recv(), in one block of whole pages.
    const std::size_t at_observations = reserve(agents * observation_bytes_);
    const std::size_t at_noise = reserve(agents * components * sizeof(float));
    const std::size_t at_rewards = reserve(agents * sizeof(float));
    const std::size_t at_terminated = reserve(agents), at_truncated = reserve(agents);
    end_pages();
    incoming_bytes_ = bytes;
    const std::size_t at_actions = reserve(agents * components * 4);  // int32 and float alike
    end_pages();
    const std::size_t at_final_observations = reserve(agents * observation_bytes_);
    const std::size_t at_states = reserve(envs * state_bytes_), at_steps = reserve(envs * sizeof(std::uint64_t));
    const std::size_t at_episodes = reserve(agents * sizeof(Episode));
    const std::size_t at_finished = reserve(envs * sizeof(double) * statistics_size());
    memory_ = std::make_unique<SharedMemory>(bytes);
    std::byte* data = incoming = memory_->data();
    states_ = data + at_states;
    steps_ = reinterpret_cast<std::uint64_t*>(data + at_steps);
    episodes_ = reinterpret_cast<Episode*>(data + at_episodes);
    statistics = reinterpret_cast<double*>(data + at_finished);
    observations = data + at_observations;
    final_observations = data + at_final_observations;
    actions = data + at_actions;
    noise = reinterpret_cast<float*>(data + at_noise);
    rewards = reinterpret_cast<float*>(data + at_rewards);
    terminated = reinterpret_cast<bool*>(data + at_terminated);
    truncated = reinterpret_cast<bool*>(data + at_truncated);
  }
  virtual ~Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  const PoolConfig& config() const { return config_; }
  const Spec& spec() const { return spec_; }
  int rows() const { return config_.num_envs * spec_.num_agents; }
  std::size_t memory_bytes() const { return memory_->bytes(); }
  std::size_t incoming_bytes() const { return incoming_bytes_; }
  virtual bool observations_are_bytes() const = 0;

  // Begins the first episode of every environment, as if the pool had just been made.
  void reset() {
    require_idle("reset");
    std::memset(memory_->data(), 0, memory_->bytes());
    run([this](int first, int last) { reset_envs(first, last); });
    recv();
  }

  // Starts one step of every environment with the actions in the buffer; returns at once if there are several threads.
  void send() {
    require_ready("send");
    run([this](int first, int last) { step_envs(first, last); });
  }

  // Helps with the step and waits until it is done. If it failed, some environments have stepped and others have not:
  // the pool then has to be reset or restored.
  void recv() {
    if (!in_flight_) throw std::logic_error("recv() without a send() before it");
    in_flight_ = ready_ = false;
    workers_.wait();
    ready_ = true;
  }

  // Sums over the episodes that ended since the last call: {episodes, returns, lengths, metrics...}. Summed in the
  // order of the environments, so that the result does not depend on the threads.
  std::vector<double> take_statistics() {
    require_idle("take_statistics");
    std::vector<double> total(statistics_size(), 0.0);
    for (int env = 0; env < config_.num_envs; ++env) {
      double* finished = statistics_of(env);
      for (std::size_t i = 0; i < total.size(); ++i) total[i] += finished[i];
      std::memset(finished, 0, sizeof(double) * total.size());
    }
    return total;
  }
  std::size_t statistics_size() const { return 3 + spec_.metrics.size(); }

  // One row of bytes per environment: {state, step count, episodes in progress, statistics not yet taken}.
  std::size_t snapshot_bytes() const {
    return state_bytes_ + sizeof(std::uint64_t) + sizeof(Episode) * agents() + sizeof(double) * statistics_size();
  }
  void snapshot(std::byte* out) {
    require_ready("snapshot");
    for (int env = 0; env < config_.num_envs; ++env) {
      for_each_part(env, [&out](std::byte* part, std::size_t size) {
        std::memcpy(out, part, size);
        out += size;
      });
    }
  }
  void restore(const std::byte* in) {
    require_idle("restore");
    std::memset(memory_->data(), 0, memory_->bytes());
    for (int env = 0; env < config_.num_envs; ++env) {
      for_each_part(env, [&in](std::byte* part, std::size_t size) {
        std::memcpy(part, in, size);
        in += size;
      });
    }
    run([this](int first, int last) { observe_envs(first, last); });
    recv();
  }

  // Agent-row buffers; see the top of the file. `incoming` is the block that holds observations, noise, rewards,
  // terminated and truncated. It and `actions` have pages of their own, so that each can be page-locked for a GPU.
  std::byte* incoming;
  std::byte *observations, *final_observations, *actions;
  float *noise, *rewards;
  bool *terminated, *truncated;
  double* statistics;  // (num_envs, statistics_size) of the episodes that ended and were not taken yet

 protected:
  // Each works on environments [first, last) of this pool and touches nothing of the others.
  virtual void reset_envs(int first, int last) = 0;
  virtual void step_envs(int first, int last) = 0;
  virtual void observe_envs(int first, int last) = 0;

  void stop_workers() { workers_.stop(); }

  std::size_t agents() const { return static_cast<std::size_t>(spec_.num_agents); }
  std::size_t observation_bytes() const { return observation_bytes_; }  // of one agent
  std::uint32_t global_id(int env) const { return static_cast<std::uint32_t>(config_.first_env + env); }
  Rng rng(int env, Purpose purpose) const { return {config_.seed, global_id(env), steps_[env], purpose}; }
  double* statistics_of(int env) const { return statistics + static_cast<std::size_t>(env) * statistics_size(); }

  void draw_noise(int first, int last) {
    const int draws = spec_.num_agents * spec_.action.components();
    const NoiseStreams streams{config_.seed, global_id(first), steps_ + first, last - first, draws};
    dist_trainer::draw_noise(streams, noise + static_cast<std::size_t>(first) * static_cast<std::size_t>(draws));
  }

  PoolConfig config_;
  Spec spec_;
  std::byte* states_ = nullptr;
  std::uint64_t* steps_ = nullptr;
  Episode* episodes_ = nullptr;

 private:
  static PoolConfig checked(PoolConfig config) {
    if (config.num_envs < 1) throw std::invalid_argument("num_envs must be at least 1");
    if (config.first_env < 0) throw std::invalid_argument("first_env must be at least 0");
    if (config.threads < 1 || config.threads > 1024) throw std::invalid_argument("threads must be 1 to 1024");
    if (!config.cores.empty() && config.cores.size() < static_cast<std::size_t>(config.threads)) {
      throw std::invalid_argument("cores must be one for each of the " + std::to_string(config.threads) +
                                  " threads, or none; there are " + std::to_string(config.cores.size()));
    }
    for (const int core : config.cores) {
      if (core < 0) throw std::invalid_argument("cores: " + std::to_string(core) + " must be at least 0");
    }
    return config;
  }
  void require_idle(const char* call) const {
    if (in_flight_) throw std::logic_error(std::string(call) + "() while a step is in flight: call recv() first");
  }
  void require_ready(const char* call) const {
    require_idle(call);
    if (!ready_) {
      throw std::logic_error(std::string(call) +
                             "() on a pool that is new or whose last step failed: call reset() or restore() first");
    }
  }
  void run(Workers::Job job) {
    in_flight_ = true;
    workers_.start(std::move(job));
  }
  void for_each_part(int env, auto&& visit) {
    const auto i = static_cast<std::size_t>(env);
    visit(states_ + i * state_bytes_, state_bytes_);
    visit(reinterpret_cast<std::byte*>(steps_ + i), sizeof(std::uint64_t));
    visit(reinterpret_cast<std::byte*>(episodes_ + i * agents()), sizeof(Episode) * agents());
    visit(reinterpret_cast<std::byte*>(statistics_of(env)), sizeof(double) * statistics_size());
  }

  std::size_t state_bytes_, observation_bytes_, incoming_bytes_ = 0;
  std::unique_ptr<SharedMemory> memory_;
  bool in_flight_ = false, ready_ = false;
  Workers workers_;  // last: its threads end before the buffers go
};

}  // namespace dist_trainer
