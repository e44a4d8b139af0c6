// The worker processes of a pool, and the thread that starts them, watches them and starts them again.
#pragma once

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "child_process.h"
#include "env_fault.h"
#include "file_identity.h"
#include "futex.h"
#include "pool_config.h"
#include "waiting.h"
#include "work_span.h"
#include "worker_control.h"

namespace dist_trainer {

class WorkerProcesses {
 public:
  using Describe = std::function<EnvFault(int env, std::string reason)>;  // `env`: its number within the pool

  // Returns when all of them are ready. Throws std::runtime_error if they cannot be started.
  WorkerProcesses(const PoolConfig& config, WorkerControl& control, int memory_file, Describe describe)
      : config_(config),
        control_(control),
        memory_file_(memory_file),
        describe_(std::move(describe)),
        library_identity_(file_identity(config.library)),
        may_spin_(config.workers <= allowed_cores()),
        stop_event_(eventfd(0, EFD_CLOEXEC)),
        workers_(static_cast<std::size_t>(config.workers)) {
    if (stop_event_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
    supervisor_ = std::thread([this] { supervise(); });
    try {
      await([this](WorkerSlot& slot) { return slot.ready != 0; });
    } catch (...) {
      stop();
      throw;
    }
  }
  ~WorkerProcesses() { stop(); }
  WorkerProcesses(const WorkerProcesses&) = delete;
  WorkerProcesses& operator=(const WorkerProcesses&) = delete;

  // Throws std::runtime_error if the workers were given up.
  void start(Job job) {
    throw_if_failed();
    control_.kind = job;
    control_.started = Clock::now().time_since_epoch().count();
    ++control_.job;
    ++control_.signal;
    if (any([](const WorkerSlot& slot) { return slot.asleep != 0; })) futex_wake_all(control_.signal);
  }

  // Blocks until the job is done. Throws std::out_of_range if an action was invalid, std::runtime_error if the workers
  // were given up.
  void wait() {
    const std::uint64_t job = control_.job;
    await([job](const WorkerSlot& slot) { return slot.completed == job; });
    std::string refused;
    for (int i = 0; i < config_.workers; ++i) {
      WorkerSlot& slot = control_.slot(i);
      if (control_.traced != 0) spans_.push_back({i, slot.began_ns, slot.ended_ns});
      if (slot.refused.exchange(0) != 0 && refused.empty()) refused = slot.message;
    }
    if (!refused.empty()) throw std::out_of_range(refused);
  }

  // Whether to note when each process works on a job; call it between jobs.
  void trace(bool on) { control_.traced = on; }

  // Those since the last call.
  std::vector<WorkSpan> take_spans() { return std::exchange(spans_, {}); }

  // Those since the last call.
  std::vector<EnvFault> take_faults() {
    const std::lock_guard lock(mutex_);
    return std::exchange(faults_, {});
  }

 private:
  // Waking a process on a core that sleeps takes longer than many steps; of longer ones it is a small part.
  static constexpr std::chrono::microseconds kCallerSpin{300};
  static constexpr double kStartSeconds = 60;  // a worker that is not ready by then never will be

  struct Worker {
    ChildProcess process;
    bool was_ready = false;  // once
    bool hangs = false;      // and was killed for it
    // When it was last looked at, and for how long it had not got on then.
    std::uint64_t job = 0;
    std::int64_t note = 0;
    double busy_seconds = 0, stuck_seconds = 0;
  };

  bool any(auto&& holds) {
    for (int i = 0; i < config_.workers; ++i) {
      if (holds(control_.slot(i))) return true;
    }
    return false;
  }

  void await(auto&& holds) {
    for (;;) {
      const std::uint32_t seen = control_.news;
      throw_if_failed();
      if (!any([&holds](WorkerSlot& slot) { return !holds(slot); })) return;
      if (may_spin_ && changes_within(kCallerSpin, control_.news, seen, let_others_run)) continue;
      control_.caller_asleep = 1;
      futex_wait(control_.news, seen);
      control_.caller_asleep = 0;
    }
  }

  void throw_if_failed() {
    if (!failed_) return;
    const std::lock_guard lock(mutex_);
    throw std::runtime_error(error_);
  }

  void stop() {
    stopping_ = true;
    eventfd_write(stop_event_, 1);
    supervisor_.join();
    close(stop_event_);
  }

  // --- The supervisor's thread. Workers end with the thread that started them, so only this one starts any.
  // -----------

  void supervise() {
    for (int i = 0; i < config_.workers && !failed_; ++i) begin(i);
    std::vector<pollfd> watched;
    const double look_every = std::clamp(config_.processes->step_timeout_s / 8, 0.001, 0.5);
    auto looked = Clock::now();
    while (!stopping_ && !failed_) {
      watched.assign(1, {stop_event_, POLLIN, 0});
      for (const Worker& worker : workers_) watched.push_back({worker.process.descriptor(), POLLIN, 0});
      poll(watched.data(), watched.size(), static_cast<int>(std::ceil(look_every * 1000)));
      const auto now = Clock::now();
      // A process that was stopped for a while, with this one, must not seem to hang.
      const double seconds = std::min(std::chrono::duration<double>(now - looked).count(), 2 * look_every);
      looked = now;
      for (int i = 0; i < config_.workers && !failed_; ++i) {
        int status = 0;
        if (workers_[static_cast<std::size_t>(i)].process.has_ended(status)) {
          replace(i, status);
        } else {
          look(i, seconds);
        }
      }
    }
    for (Worker& worker : workers_) worker.process.kill();
    for (Worker& worker : workers_) worker.process.reap();
  }

  void begin(int index) {
    Worker& worker = workers_[static_cast<std::size_t>(index)];
    worker.hangs = false;
    worker.stuck_seconds = worker.busy_seconds = 0;
    control_.slot(index).ready = 0;
    control_.slot(index).say("");
    std::vector<std::string> arguments{
        config_.processes->program,
        "--name=" + config_.name,
        "--num_envs=" + std::to_string(config_.num_envs),
        "--first_env=" + std::to_string(config_.first_env),
        "--seed=" + std::to_string(config_.seed),
        "--workers=" + std::to_string(config_.workers),
        "--worker=" + std::to_string(index),
        "--core=" + std::to_string(config_.cores.empty() ? -1 : config_.cores[static_cast<std::size_t>(index)]),
        "--check=" + std::to_string(config_.check),
        "--spin=" + std::to_string(may_spin_),
        "--parent=" + std::to_string(getpid()),
        "--memory=" + std::to_string(config_.processes->memory_bytes)};
    if (!config_.library.empty()) {
      if (file_identity(config_.library) != library_identity_) {
        fail("env.library=" + config_.library + ": was built again, or is gone, since the run began");
        return;
      }
      arguments.push_back("--library=" + config_.library);
    }
    for (const auto& [name, value] : config_.params) {
      char text[32];  // exactly this number
      std::snprintf(text, sizeof(text), "%.17g", value);
      arguments.push_back(name + "=" + text);
    }
    if (const int error = worker.process.start(arguments, memory_file_); error != 0) {
      fail("cannot start " + arguments[0] + ": " + std::strerror(error));
    }
  }

  // A worker that does not get on is killed; `replace` will find it. One that would run if the machine were not so busy
  // is only charged the time that it ran.
  void look(int index, double seconds) {
    Worker& worker = workers_[static_cast<std::size_t>(index)];
    const WorkerSlot& slot = control_.slot(index);
    const bool ready = slot.ready != 0;
    worker.was_ready |= ready;
    const std::uint64_t job = control_.job;
    const std::int64_t note = slot.note;
    const double busy = worker.process.busy_seconds();
    const bool idle = ready && slot.completed == job;
    if (idle || job != worker.job || note != worker.note) {
      worker.stuck_seconds = 0;
    } else {
      worker.stuck_seconds += worker.process.is_runnable() ? busy - worker.busy_seconds : seconds;
    }
    worker.job = job;
    worker.note = note;
    worker.busy_seconds = busy;
    worker.hangs = worker.stuck_seconds >= (ready ? config_.processes->step_timeout_s : kStartSeconds);
    if (worker.hangs) worker.process.kill();
  }

  void replace(int index, int status) {
    Worker& worker = workers_[static_cast<std::size_t>(index)];
    const WorkerSlot& slot = control_.slot(index);
    worker.was_ready |= slot.ready != 0;
    std::string reason = slot.message[0] != '\0' ? slot.message
                         : worker.hangs ? "no progress within " + seconds_text(config_.processes->step_timeout_s) +
                                              " s (env.step_timeout_s)"
                                        : describe_status(status);
    if (!worker.was_ready) {
      fail("a worker process could not start: " + reason);
      return;
    }
    const std::uint64_t job = control_.job;
    const int env = slot.job == job && slot.completed != job ? slot.env() : -1;
    EnvFault fault = env < 0 ? EnvFault{.reason = std::move(reason)} : describe_(env, std::move(reason));
    in_a_row_ = job <= last_fault_ + 1 ? in_a_row_ + 1 : 1;
    last_fault_ = job;
    if (in_a_row_ > config_.processes->max_restarts) {
      fail(std::to_string(in_a_row_) + " worker processes in a row were lost, more than env.max_restarts=" +
           std::to_string(config_.processes->max_restarts) + "; the last with " +
           text_of(fault, config_.name, config_.seed));
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      faults_.push_back(std::move(fault));
    }
    begin(index);
  }

  void fail(const std::string& error) {
    {
      const std::lock_guard lock(mutex_);
      error_ = error;
    }
    failed_ = true;
    ++control_.news;
    futex_wake_all(control_.news);
  }

  static std::string seconds_text(double seconds) {
    char text[32];
    std::snprintf(text, sizeof(text), "%g", seconds);
    return text;
  }

  const PoolConfig& config_;
  WorkerControl& control_;
  const int memory_file_;
  const Describe describe_;
  const std::string library_identity_;
  const bool may_spin_;  // there is a core for each worker
  const int stop_event_;
  std::atomic<bool> stopping_{false}, failed_{false};
  std::vector<Worker> workers_;
  std::vector<WorkSpan> spans_;   // of the caller's thread
  int in_a_row_ = 0;              // faults in jobs one after the other
  std::uint64_t last_fault_ = 0;  // the job of the last
  std::mutex mutex_;
  std::string error_;  // guarded, as what follows
  std::vector<EnvFault> faults_;
  std::thread supervisor_;  // last: it uses all of the above
};

}  // namespace dist_trainer
