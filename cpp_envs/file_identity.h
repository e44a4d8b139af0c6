// Tells whether a file is still the one that it was.
#pragma once

#include <sys/stat.h>

#include <string>

namespace dist_trainer {

// Of a file, as it is now; empty if there is none.
inline std::string file_identity(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return "";
  return std::to_string(status.st_dev) + "-" + std::to_string(status.st_ino) + "-" + std::to_string(status.st_size) +
         "-" + std::to_string(status.st_mtim.tv_sec) + "." + std::to_string(status.st_mtim.tv_nsec);
}

}  // namespace dist_trainer
