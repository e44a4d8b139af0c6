// Sums and gathers of the processes of one machine, through memory that they share: no sockets, no threads, few
// wake-ups.
#pragma once

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "workers.h"

namespace dist_trainer {

// A file descriptor that is closed with its owner.
class Descriptor {
 public:
  Descriptor(int number, const std::string& what) : number_(number) {
    if (number < 0) throw std::system_error(errno, std::generic_category(), what);
  }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  int number() const { return number_; }

 private:
  int number_;
};

// One member of the group. Every member makes the same calls in the same order. The segment has no name in the file
// system: the first member makes it, the others open it through the first one's entry in /proc, and it is gone with
// the last of them, whatever killed it.
//
// A sum has three parts, and a barrier after each of the first two: everyone copies its numbers into its slot; member
// i adds up the i-th part of all slots, in the order of the members, so that the result has one set of bits; everyone
// copies the result back. No slot is written before all have passed the barrier behind which it was read.
class LocalGroup {
 public:
  using Seconds = std::chrono::duration<double>;

  // The first member makes the segment. Throws std::system_error if it cannot be had.
  LocalGroup(int rank, int size, std::size_t slot_bytes)
      : LocalGroup(rank, size, slot_bytes, Descriptor(memfd_create("dist_trainer", MFD_CLOEXEC), "memfd_create")) {
    if (ftruncate(file_.number(), static_cast<off_t>(bytes())) != 0) {
      throw std::system_error(errno, std::generic_category(), "cannot size the learners' shared memory");
    }
    map();
    new (header_) Header;
  }

  // The others open what the first one made.
  LocalGroup(int rank, int size, std::size_t slot_bytes, const std::string& path)
      : LocalGroup(rank, size, slot_bytes, Descriptor(open(path.c_str(), O_RDWR | O_CLOEXEC), path)) {
    map();
  }
  ~LocalGroup() {
    if (header_ != nullptr) munmap(header_, bytes());
  }
  LocalGroup(const LocalGroup&) = delete;
  LocalGroup& operator=(const LocalGroup&) = delete;

  int size() const { return static_cast<int>(size_); }

  std::string path() const { return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(file_.number()); }

  // The members' processes in their order: from now on the end of one ends the waiting for it. Throws
  // std::system_error.
  void watch(const std::vector<int>& processes) {
    for (const int process : processes) {
      watched_.emplace_back(static_cast<int>(syscall(SYS_pidfd_open, process, 0)), "pidfd_open");
    }
  }

  // How long a member may look for the others before it sleeps: with a core for each, sleeping costs more.
  void spin_for(Seconds spin) { spin_ = spin; }

  // Sums over all members, in place. `meanwhile` is called every tenth of a second while this member waits. Throws
  // std::runtime_error if the others have not come after `patience`, or one has ended; no call can follow then.
  template <class T>
  void sum(T* data, std::size_t count, Seconds patience, const std::function<void()>& meanwhile) {
    const std::size_t most = slot_bytes_ / sizeof(T);
    for (std::size_t first = 0; first < count; first += most) {
      sum_part(data + first, std::min(most, count - first), patience, meanwhile);
    }
  }

  // The bytes of all members, `count` of each, one member's after the other's. Throws as `sum` does.
  void gather(const std::byte* own, std::size_t count, std::byte* all, Seconds patience,
              const std::function<void()>& meanwhile) {
    for (std::size_t first = 0; first < count; first += slot_bytes_) {
      const std::size_t length = std::min(slot_bytes_, count - first);
      std::copy_n(own + first, length, slot<std::byte>(rank_));
      barrier(patience, meanwhile);
      for (std::size_t rank = 0; rank < size_; ++rank) {
        std::copy_n(slot<std::byte>(rank), length, all + rank * count + first);
      }
      barrier(patience, meanwhile);
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t kLine = 64;  // bytes of a cache line
  static constexpr std::size_t kBlock = 4096;

  struct Header {
    alignas(kLine) std::atomic<std::uint32_t> arrived{0};   // members at the present barrier
    alignas(kLine) std::atomic<std::uint32_t> barriers{0};  // passed by all; waited for
    std::atomic<std::uint32_t> sleepers{0};
  };
  static_assert(std::atomic<std::uint32_t>::is_always_lock_free);  // or processes could not share it

  LocalGroup(int rank, int size, std::size_t slot_bytes, Descriptor file)
      : rank_(static_cast<std::size_t>(rank)),
        size_(static_cast<std::size_t>(size)),
        slot_bytes_(round_up_to_line(slot_bytes)),
        file_(std::move(file)) {}

  static std::size_t round_up_to_line(std::size_t size) { return (size + kLine - 1) / kLine * kLine; }

  // A slot for each member, and one for the result. Pages that nobody touches cost nothing.
  std::size_t bytes() const { return sizeof(Header) + (size_ + 1) * slot_bytes_; }

  void map() {
    void* data = mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, file_.number(), 0);
    if (data == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "cannot map shared memory");
    header_ = static_cast<Header*>(data);
  }

  template <class T>
  T* slot(std::size_t index) const {
    return reinterpret_cast<T*>(reinterpret_cast<std::byte*>(header_ + 1) + index * slot_bytes_);
  }

  template <class T>
  void sum_part(T* data, std::size_t count, Seconds patience, const std::function<void()>& meanwhile) {
    std::copy_n(data, count, slot<T>(rank_));
    barrier(patience, meanwhile);
    const auto bound = [&](std::size_t rank) {  // whole cache lines, so that no two members write to the same one
      return std::min(count, (count * rank / size_ + kLine - 1) / kLine * kLine);
    };
    T* const result = slot<T>(size_);
    for (std::size_t first = bound(rank_), end = bound(rank_ + 1); first < end; first += kBlock) {
      const std::size_t length = std::min(kBlock, end - first);
      T* const sums = result + first;
      std::copy_n(slot<T>(0) + first, length, sums);
      for (std::size_t other = 1; other < size_; ++other) {
        const T* const terms = slot<T>(other) + first;
        for (std::size_t i = 0; i < length; ++i) sums[i] += terms[i];
      }
    }
    barrier(patience, meanwhile);
    std::copy_n(result, count, data);
  }

  void barrier(Seconds patience, const std::function<void()>& meanwhile) {
    if (broken_) throw std::runtime_error("an earlier call of the learners' group has failed");
    const std::uint32_t passed = header_->barriers.load();
    if (header_->arrived.fetch_add(1) + 1 == size_) {
      header_->arrived.store(0);
      header_->barriers.store(passed + 1);
      if (header_->sleepers.load() > 0) futex(FUTEX_WAKE, INT_MAX, nullptr);
      return;
    }
    broken_ = true;  // unless all come
    const auto began = Clock::now();
    for (auto now = began; now - began < spin_; now = Clock::now()) {
      for (int i = 0; i < 64; ++i, relax()) {
        if (header_->barriers.load() != passed) {
          broken_ = false;
          return;
        }
      }
      sched_yield();
    }
    ++header_->sleepers;
    const timespec tenth{0, 100'000'000};
    while (header_->barriers.load() == passed) {
      if (futex(FUTEX_WAIT, passed, &tenth) != 0 && errno == ETIMEDOUT) {
        meanwhile();
        look_after_the_others(passed);
        if (Clock::now() - began > patience) throw std::runtime_error("not all learners have come in time");
      }
    }
    --header_->sleepers;
    broken_ = false;
  }

  // Between processes, so without FUTEX_PRIVATE_FLAG.
  long futex(int operation, std::uint32_t value, const timespec* timeout) {
    return syscall(SYS_futex, &header_->barriers, operation, value, timeout, nullptr, 0);
  }

  void look_after_the_others(std::uint32_t passed) const {
    for (std::size_t rank = 0; rank < watched_.size(); ++rank) {
      pollfd process{watched_[rank].number(), POLLIN, 0};
      if (poll(&process, 1, 0) > 0 && header_->barriers.load() == passed) {
        throw std::runtime_error("the process of learner " + std::to_string(rank) + " has ended");
      }
    }
  }

  const std::size_t rank_, size_, slot_bytes_;
  Descriptor file_;
  Header* header_ = nullptr;
  std::vector<Descriptor> watched_;
  Seconds spin_{0};
  bool broken_ = false;
};

}  // namespace dist_trainer
