// One anonymous shared-memory segment. It has no name in the file system: whatever kills the process, nothing is left.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <string>
#include <system_error>

namespace dist_trainer {

inline std::size_t round_up(std::size_t size, std::size_t unit) { return (size + unit - 1) / unit * unit; }

inline std::size_t page_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

class SharedMemory {
 public:
  explicit SharedMemory(std::size_t bytes) : bytes_(bytes) {
    const int file = memfd_create("dist_trainer", MFD_CLOEXEC);
    if (file < 0) throw std::system_error(errno, std::generic_category(), "memfd_create");
    if (ftruncate(file, static_cast<off_t>(bytes)) != 0) {
      const int error = errno;
      close(file);
      throw std::system_error(error, std::generic_category(), "cannot size the environments' shared memory");
    }
    data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    const int error = errno;
    close(file);  // the mapping keeps the segment alive
    if (data_ == MAP_FAILED) {
      throw std::system_error(error, std::generic_category(),
                              "cannot map " + std::to_string(bytes) + " bytes for the environments");
    }
  }
  ~SharedMemory() { munmap(data_, bytes_); }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  std::byte* data() const { return static_cast<std::byte*>(data_); }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_;
  void* data_ = nullptr;
};

}  // namespace dist_trainer
