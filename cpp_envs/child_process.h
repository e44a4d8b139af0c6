// A child process: started without fork, watched, killed.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern char** environ;

namespace dist_trainer {

inline constexpr int kInherited = 3;  // the descriptor that a child finds its one inherited file under

class ChildProcess {
 public:
  // Runs arguments[0] with one file. posix_spawn, because fork() copies a process whose other threads hold locks. The
  // child begins with signals blocked, so that it can choose which to ignore before one of them ends it. Returns errno.
  int start(const std::vector<std::string>& arguments, int file) {
    std::vector<char*> argv;
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, file, kInherited);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t all;
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &all);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    const int error = posix_spawn(&pid_, argv[0], &files, &attributes, argv.data(), environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    if (error != 0) {
      pid_ = -1;
      return error;
    }
#ifdef SYS_pidfd_open
    descriptor_ = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
#endif
    return 0;
  }

  // Readable when it has ended; -1 where the kernel is older than 5.3.
  int descriptor() const { return descriptor_; }

  // Then it is reaped, and `status` is that of waitpid.
  bool has_ended(int& status) {
    if (pid_ < 0) return false;
    const pid_t ended = waitpid(pid_, &status, WNOHANG);
    if (ended == 0) return false;
    if (ended < 0) status = 0;  // somebody else has reaped it
    forget();
    return true;
  }

  // Processor time that it has used.
  double busy_seconds() const {
    clockid_t clock = 0;
    timespec time{};
    if (pid_ < 0 || clock_getcpuclockid(pid_, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }

  // It runs, or would if it were given a core: it does not sleep, wait, or stand still.
  bool is_runnable() const {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/stat");
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const std::size_t end = text.rfind(')');  // of the name, which may hold anything
    return end != std::string::npos && end + 2 < text.size() && text[end + 2] == 'R';
  }

  void kill() const {
    if (pid_ > 0) ::kill(pid_, SIGKILL);  // not reaped yet: the number is still its own
  }

  // Waits for its end.
  void reap() {
    if (pid_ < 0) return;
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    forget();
  }

 private:
  void forget() {
    if (descriptor_ >= 0) close(descriptor_);
    pid_ = descriptor_ = -1;
  }

  pid_t pid_ = -1;
  int descriptor_ = -1;
};

// How a process ended.
inline std::string describe_status(int status) {
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    const std::string name = strsignal(signal);
    return signal == SIGKILL ? name + " from outside, or for the memory it took" : name;
  }
  return "exit status " + std::to_string(WIFEXITED(status) ? WEXITSTATUS(status) : 0);
}

}  // namespace dist_trainer
