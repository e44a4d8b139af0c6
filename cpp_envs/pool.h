// The pool: N environments behind one set of buffers, stepped together by worker threads or processes.
//
// Buffers are structures of arrays over agent rows (row = environment * num_agents + agent), in one anonymous
// shared-memory segment that torch sees without a copy. One cycle is
//   caller reads observations and noise, writes actions -> send() -> recv() -> caller reads rewards, terminated,
//   truncated, the next observations, and, in rows that were truncated, final_observations.
// Everything random is keyed by (seed, global environment id, step): results depend neither on the number of workers
// nor on how the global set of environments is cut over pools.
//
// With worker processes an environment that crashes or hangs takes its process along, no other, and loses its episode:
// the step's reward is 0, it is truncated, its final observation is the last one known, and it is left out of the
// statistics. The others do not notice, so that what an environment does deterministically does not depend on the
// number of workers here either.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "env.h"
#include "env_fault.h"
#include "noise.h"
#include "pool_config.h"
#include "shared_memory.h"
#include "worker_control.h"
#include "worker_processes.h"
#include "workers.h"

namespace dist_trainer {

// What of the contract's optional parts an environment has.
struct Features {
  bool legal = false, resting = false;
};

// Per agent: the episode in progress. Part of a snapshot.
struct Episode {
  double return_sum = 0;
  std::int64_t length = 0;
};

// Everything about the pool that does not depend on the environment's type.
class Pool {
 public:
  Pool(PoolConfig config, Spec spec, Features features, std::size_t state_bytes, std::size_t observation_item_bytes)
      : config_(checked(std::move(config))),
        spec_(std::move(spec)),
        features_(features),
        state_bytes_(state_bytes),
        observation_bytes_(observation_item_bytes * static_cast<std::size_t>(spec_.observation_size())) {
    if (!config_.processes && !config_.attachment) {
      threads_ = std::make_unique<Workers>(config_.workers, config_.num_envs, config_.cores);
    }
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
    const std::size_t at_legal = reserve(features_.legal ? agents * choices() : 0);
    const std::size_t at_resting = reserve(features_.resting ? agents : 0);
    end_pages();
    incoming_bytes_ = bytes;
    const std::size_t at_actions = reserve(agents * components * 4);  // int32 and float alike
    end_pages();
    const std::size_t at_final_observations = reserve(agents * observation_bytes_);
    const std::size_t at_states = reserve(envs * state_bytes_), at_steps = reserve(envs * sizeof(std::uint64_t));
    const std::size_t at_episodes = reserve(agents * sizeof(Episode));
    const std::size_t at_finished = reserve(envs * sizeof(double) * statistics_size());
    buffer_bytes_ = bytes;
    const std::size_t at_silent = reserve(agents);
    const std::size_t at_control = reserve(threads_ ? 0 : WorkerControl::bytes(config_.workers));
    memory_ = config_.attachment ? std::make_unique<SharedMemory>(bytes, config_.attachment->file)
                                 : std::make_unique<SharedMemory>(bytes);
    std::byte* data = incoming = memory_->data();
    control_ = threads_ ? nullptr : reinterpret_cast<WorkerControl*>(data + at_control);
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
    legal = reinterpret_cast<bool*>(data + at_legal);
    resting = reinterpret_cast<bool*>(data + at_resting);
    silent = reinterpret_cast<bool*>(data + at_silent);
    if (!config_.processes) {
      memory_->close_file();
      return;
    }
    processes_ = std::make_unique<WorkerProcesses>(
        config_, *control_, memory_->file(),
        [this](int env, std::string reason) { return fault_of(env, std::move(reason)); });
  }
  virtual ~Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  const PoolConfig& config() const { return config_; }
  const Spec& spec() const { return spec_; }
  const Features& features() const { return features_; }
  int rows() const { return config_.num_envs * spec_.num_agents; }
  std::size_t memory_bytes() const { return memory_->bytes(); }
  std::size_t incoming_bytes() const { return incoming_bytes_; }
  virtual bool observations_are_bytes() const = 0;

  // Begins the first episode of every environment, as if the pool had just been made.
  void reset() {
    require_idle("reset");
    std::memset(memory_->data(), 0, buffer_bytes_);
    run(Job::kReset);
    recv();
  }

  // Starts one step of every environment with the actions in the buffer; returns at once unless the caller's is the
  // only thread.
  void send() {
    require_ready("send");
    run(Job::kStep);
  }

  // Waits until the step is done; threads are helped with it. If it failed, some environments have stepped and others
  // have not: the pool then has to be reset or restored.
  void recv() {
    if (!in_flight_) throw std::logic_error("recv() without a send() before it");
    in_flight_ = ready_ = false;
    if (processes_) {
      processes_->wait();
    } else {
      threads_->wait();
    }
    ready_ = true;
  }

  // What befell worker processes since the last call.
  std::vector<EnvFault> take_faults() { return processes_ ? processes_->take_faults() : std::vector<EnvFault>{}; }

  // From now on, or no longer, notes when each thread or process works. For a profile.
  void trace(bool on) {
    require_idle("trace");
    processes_ ? processes_->trace(on) : threads_->trace(on);
  }
  // What was noted since the last call.
  std::vector<WorkSpan> take_spans() { return processes_ ? processes_->take_spans() : threads_->take_spans(); }

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
    std::memset(memory_->data(), 0, buffer_bytes_);
    for (int env = 0; env < config_.num_envs; ++env) {
      for_each_part(env, [&in](std::byte* part, std::size_t size) {
        std::memcpy(part, in, size);
        in += size;
      });
    }
    run(Job::kObserve);
    recv();
  }

  // From now on the state at the end of each environment's latest episode is kept: a step that ends one begins the
  // next, and so nobody would ever see it.
  void keep_ends() {
    require_idle("keep_ends");
    if (!threads_) throw std::logic_error("keep_ends() is for threads: processes have memory of their own");
    ends_.resize(static_cast<std::size_t>(config_.num_envs) * state_bytes_);
    end_counts_.resize(static_cast<std::size_t>(config_.num_envs));
  }

  // How many episodes of all its agents environment `env` has ended since keep_ends().
  std::int64_t ends(int env) const {
    require_ready("ends");
    return end_counts_.at(static_cast<std::size_t>(env));
  }

  // Draws environment `env` into (picture.height, picture.width, 3) bytes: as the last step left it or, if `at_end`, as
  // its latest episode ended.
  void render(int env, bool at_end, std::uint8_t* pixels) const {
    require_ready("render");
    check_render(config_.name, spec_.picture, env, config_.num_envs);
    const auto i = static_cast<std::size_t>(env);
    if (at_end && (end_counts_.empty() || end_counts_[i] == 0)) {
      throw std::logic_error("render(" + std::to_string(env) +
                             ", at_end=True): no episode has ended since keep_ends()");
    }
    Canvas canvas(pixels, spec_.picture.width, spec_.picture.height);
    draw((at_end ? ends_.data() : states_) + i * state_bytes_, canvas);
  }

  // Where in that picture each agent is, into (agents); false, and nothing written, if the environment does not say.
  bool places(int env, std::span<Point> out) const {
    require_ready("places");
    check_render(config_.name, spec_.picture, env, config_.num_envs);
    return find(states_ + static_cast<std::size_t>(env) * state_bytes_, out);
  }

  // In a worker process: does its slice of a job, or what is left of it, and notes in the slot how far it is.
  virtual void run_slice(Job job, int first, int last, WorkerSlot& slot) = 0;
  // In a worker process: makes good what its predecessor, which died at environment `env`, may have left half done.
  virtual void recover(Job job, int env, Phase phase, WorkerSlot& slot) = 0;
  WorkerControl& control() { return *control_; }

  // Agent-row buffers; see the top of the file. `incoming` is the block that holds observations, noise, rewards,
  // terminated, truncated and, of environments that have them, legal (rows, choices) and resting (rows,), both of the
  // next action. It and `actions` have pages of their own, so that each can be page-locked for a GPU.
  std::byte* incoming;
  std::byte *observations, *final_observations, *actions;
  float *noise, *rewards;
  bool *terminated, *truncated, *legal, *resting;
  bool* silent;        // (rows,) whose episodes are left out of the statistics: the caller's, at first nobody's
  double* statistics;  // (num_envs, statistics_size) of the episodes that ended and were not taken yet

 protected:
  // In a thread: works on environments [first, last) of this pool and touches nothing of the others.
  virtual void run_envs(Job job, int first, int last) = 0;
  // Of the environment whose state lies there.
  virtual void draw(const std::byte* state, Canvas& canvas) const = 0;
  virtual bool find(const std::byte* state, std::span<Point> out) const = 0;

  // Called at the end of an episode, before the reset.
  void keep_end(int env) {
    if (ends_.empty()) return;
    const auto i = static_cast<std::size_t>(env);
    std::memcpy(&ends_[i * state_bytes_], states_ + i * state_bytes_, state_bytes_);
    ++end_counts_[i];
  }

  void stop_workers() {
    if (threads_) threads_->stop();
  }

  std::size_t agents() const { return static_cast<std::size_t>(spec_.num_agents); }
  std::size_t choices() const { return static_cast<std::size_t>(spec_.action.choices()); }
  std::size_t observation_bytes() const { return observation_bytes_; }  // of one agent
  std::uint32_t global_id(int env) const { return static_cast<std::uint32_t>(config_.first_env + env); }
  Rng rng(int env, Purpose purpose) const { return {config_.seed, global_id(env), steps_[env], purpose}; }
  double* statistics_of(int env) const { return statistics + static_cast<std::size_t>(env) * statistics_size(); }

  void draw_noise(int first, int last) {
    const int draws = spec_.num_agents * spec_.action.components();
    const NoiseStreams streams{config_.seed, global_id(first), steps_ + first, last - first, draws};
    dist_trainer::draw_noise(streams, noise + static_cast<std::size_t>(first) * static_cast<std::size_t>(draws));
  }

  // The episode of this environment is over, with a step that does not count; what it shows still is its last known
  // observation. Its finished episodes stay in the statistics unless those are torn: added in part.
  void lose_episode(int env, bool torn) {
    const auto first = static_cast<std::size_t>(env) * agents();
    for (std::size_t row = first; row < first + agents(); ++row) {
      rewards[row] = 0;
      terminated[row] = false;
      truncated[row] = true;
      episodes_[row] = Episode{};
    }
    std::memcpy(final_observations + first * observation_bytes_, observations + first * observation_bytes_,
                agents() * observation_bytes_);
    if (torn) std::memset(statistics_of(env), 0, sizeof(double) * statistics_size());
  }

  // Called while nobody works on this environment of the pool.
  EnvFault fault_of(int env, std::string reason) const {
    const std::int64_t length = episodes_[static_cast<std::size_t>(env) * agents()].length;
    return {config_.first_env + env, steps_[env], length, std::move(reason)};
  }

  PoolConfig config_;
  Spec spec_;
  Features features_;
  std::byte* states_ = nullptr;
  std::uint64_t* steps_ = nullptr;
  Episode* episodes_ = nullptr;
  std::vector<std::byte> ends_;           // as states_; empty without keep_ends()
  std::vector<std::int64_t> end_counts_;  // (num_envs,) likewise

 private:
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
  void run(Job job) {
    in_flight_ = true;
    if (processes_) {
      processes_->start(job);
    } else {
      threads_->start([this, job](int first, int last) { run_envs(job, first, last); });
    }
  }
  void for_each_part(int env, auto&& visit) {
    const auto i = static_cast<std::size_t>(env);
    visit(states_ + i * state_bytes_, state_bytes_);
    visit(reinterpret_cast<std::byte*>(steps_ + i), sizeof(std::uint64_t));
    visit(reinterpret_cast<std::byte*>(episodes_ + i * agents()), sizeof(Episode) * agents());
    visit(reinterpret_cast<std::byte*>(statistics_of(env)), sizeof(double) * statistics_size());
  }

  std::size_t state_bytes_, observation_bytes_, incoming_bytes_ = 0, buffer_bytes_ = 0;
  std::unique_ptr<SharedMemory> memory_;
  WorkerControl* control_ = nullptr;  // only with processes
  bool in_flight_ = false, ready_ = false;
  std::unique_ptr<Workers> threads_;  // last: they end before the buffers go
  std::unique_ptr<WorkerProcesses> processes_;
};

}  // namespace dist_trainer
