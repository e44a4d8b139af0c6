// One anonymous shared-memory segment. It has no name in the file system: whatever kills the process, nothing is left.
#pragma once

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <system_error>

namespace dist_trainer {

inline std::size_t round_up(std::size_t size, std::size_t unit) { return (size + unit - 1) / unit * unit; }

inline std::size_t page_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

class SharedMemory {
 public:
  // A new segment, zeroed. Its file descriptor is not inherited by programs that are started.
  explicit SharedMemory(std::size_t bytes) : bytes_(bytes), file_(memfd_create("dist_trainer", MFD_CLOEXEC)) {
    if (file_ < 0) throw std::system_error(errno, std::generic_category(), "memfd_create");
    if (ftruncate(file_, static_cast<off_t>(bytes)) != 0) {
      const int error = errno;
      close(file_);
      throw std::system_error(error, std::generic_category(), "cannot size the environments' shared memory");
    }
    map();
  }
  // Another process' segment, by a descriptor of it, which is taken over.
  SharedMemory(std::size_t bytes, int file) : bytes_(bytes), file_(file) {
    struct stat status{};
    if (fstat(file, &status) != 0 || static_cast<std::size_t>(status.st_size) != bytes) {
      throw std::runtime_error(
          "the shared memory has another size than expected: was this program built from other "
          "sources than the module?");
    }
    map();
  }
  ~SharedMemory() {
    munmap(data_, bytes_);
    close_file();
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // For when no other process is going to map it. The mapping keeps the segment alive.
  void close_file() {
    if (file_ >= 0) close(file_);
    file_ = -1;
  }

  std::byte* data() const { return static_cast<std::byte*>(data_); }
  std::size_t bytes() const { return bytes_; }
  int file() const { return file_; }

 private:
  void map() {
    data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    if (data_ != MAP_FAILED) return;
    const int error = errno;
    close(file_);
    throw std::system_error(error, std::generic_category(),
                            "cannot map " + std::to_string(bytes_) + " bytes for the environments");
  }

  std::size_t bytes_;
  int file_;
  void* data_ = nullptr;
};

}  // namespace dist_trainer
