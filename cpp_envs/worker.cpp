// The program of a worker process: steps a slice of a pool's environments, in the pool's shared memory, until its
// parent ends. It has no Python and writes nothing but what environments print.
//
// Arguments: --SETTING=NUMBER of the pool and of this worker (see worker_processes.h), NAME=NUMBER for the environment.
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <system_error>

#include "child_process.h"
#include "load_library.h"

namespace dist_trainer {
namespace {

struct Arguments {
  std::string name;
  std::map<std::string, std::string> settings;
  ParamValues params;

  Arguments(int count, char** texts) {
    for (int i = 1; i < count; ++i) {
      const std::string text = texts[i];
      const std::size_t equals = text.find('=');
      if (equals == std::string::npos) throw std::invalid_argument(text + ": not NAME=VALUE");
      const std::string key = text.substr(0, equals), value = text.substr(equals + 1);
      if (key.starts_with("--")) {
        settings[key.substr(2)] = value;
      } else {
        params[key] = std::stod(value);
      }
    }
    name = settings.at("name");
  }
  long long number(const std::string& key) const { return std::stoll(settings.at(key)); }

  PoolConfig config() const {
    PoolConfig config;
    config.name = name;
    config.num_envs = static_cast<int>(number("num_envs"));
    config.first_env = static_cast<int>(number("first_env"));
    config.seed = std::stoull(settings.at("seed"));
    config.workers = static_cast<int>(number("workers"));
    config.check = number("check") != 0;
    config.attachment = {kInherited, static_cast<int>(number("worker"))};
    return config;
  }
};

// It must end with its parent, and by nothing else that its parent does not want: torchrun signals whole groups.
void guard_process(pid_t parent) {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE}) {
    ::signal(signal, SIG_IGN);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // it ended before the line above
}

// What the parent had open without saying that it is its own alone: sockets and devices must not outlive it here.
void close_other_files() {
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return;
  const int own = dirfd(folder);
  std::vector<int> files;
  while (const dirent* entry = readdir(folder)) {
    const int file = std::atoi(entry->d_name);
    if (file > kInherited && file != own) files.push_back(file);
  }
  closedir(folder);
  for (const int file : files) close(file);
}

// Where memory runs short this process is to be ended, not the learner.
void offer_itself_to_the_oom_killer() {
  const int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  if (write(file, "500", 3) < 0) std::perror("worker: oom_score_adj");
  close(file);
}

void limit_memory(long long bytes) {
  if (bytes <= 0) return;
  const rlimit limit{static_cast<rlim_t>(bytes), static_cast<rlim_t>(bytes)};
  if (setrlimit(RLIMIT_DATA, &limit) != 0) {
    throw std::system_error(errno, std::generic_category(), "cannot limit the memory of a worker process");
  }
}

void pin(int core) {
  if (core < 0) return;
  std::vector<cpu_set_t> mask(static_cast<std::size_t>(core) / CPU_SETSIZE + 1);
  const std::size_t bytes = mask.size() * sizeof(cpu_set_t);
  CPU_SET_S(static_cast<std::size_t>(core), bytes, mask.data());
  if (sched_setaffinity(0, bytes, mask.data()) != 0) {
    throw std::system_error(errno, std::generic_category(), "cannot pin a process to core " + std::to_string(core));
  }
}

// One job after the other, for ever. An exception of an environment ends it, with a message in the slot.
[[noreturn]] void serve(Pool& pool, int worker, int workers, bool may_spin) {
  WorkerControl& control = pool.control();
  WorkerSlot& slot = control.slot(worker);
  const auto [first, last] = slice_of(worker, workers, pool.config().num_envs);
  slot.asleep = 0;
  slot.ready = 1;
  ++control.news;
  futex_wake_all(control.news);
  bool spin = may_spin;
  for (;;) {
    const std::uint32_t seen = control.signal;
    const std::uint64_t job = control.job;
    if (slot.completed == job) {
      const auto idle_since = Clock::now();
      if (!spin || !changes_within(kSpin, control.signal, seen, let_others_run)) {
        slot.asleep = 1;
        futex_wait(control.signal, seen);
        slot.asleep = 0;
      }
      const Clock::time_point started{Clock::duration(control.started)};
      spin = may_spin && started - idle_since < kSpin;
      continue;
    }
    const Job kind = control.kind;
    const bool traced = control.traced != 0;
    if (traced) slot.began_ns = steady_ns();
    try {
      if (slot.job != job) {
        slot.stepped = first;
        slot.clear_note();
        slot.job = job;
      } else if (const int env = slot.env(); env >= 0) {  // its predecessor ended there
        slot.stepped = std::max(slot.stepped.load(), env + 1);
        pool.recover(kind, env, slot.phase(), slot);
      }
      pool.run_slice(kind, first, last, slot);
    } catch (const InvalidAction& error) {
      slot.say(error.what());
      slot.refused = 1;
    }
    if (traced) slot.ended_ns = steady_ns();
    slot.completed = job;
    bool all = true;
    for (int i = 0; i < workers && all; ++i) all = control.slot(i).completed == job;
    if (!all) continue;
    ++control.news;
    if (control.caller_asleep != 0) futex_wake_all(control.news);
  }
}

}  // namespace
}  // namespace dist_trainer

int main(int count, char** texts) {
  namespace dt = dist_trainer;
  std::unique_ptr<dt::Pool> pool;  // not inside: it holds the memory that the message is for
  dt::WorkerSlot* slot = nullptr;
  try {
    const dt::Arguments arguments(count, texts);
    dt::guard_process(static_cast<pid_t>(arguments.number("parent")));
    dt::close_other_files();
    dt::offer_itself_to_the_oom_killer();
    if (arguments.settings.contains("library")) dt::load_library(arguments.settings.at("library"));
    dt::PoolConfig config = arguments.config();
    const int worker = config.attachment->worker, workers = config.workers;
    pool = dt::find_env(arguments.name).make_pool(std::move(config), arguments.params);
    slot = &pool->control().slot(worker);
    dt::pin(static_cast<int>(arguments.number("core")));
    dt::limit_memory(arguments.number("memory"));
    dt::serve(*pool, worker, workers, arguments.number("spin") != 0);
  } catch (const std::exception& error) {
    if (slot != nullptr) {
      slot->say(error.what());
    } else {
      std::fprintf(stderr, "%s: %s\n", texts[0], error.what());
    }
  } catch (...) {
    if (slot != nullptr) slot->say("it threw something that is no std::exception");
  }
  _exit(1);
}
