// Loads environments from a shared library that was built on its own (library.h).
#pragma once

#include <dlfcn.h>

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "abi.h"
#include "file_identity.h"

namespace dist_trainer {

// The first part of abi_text() that differs.
inline std::string abi_difference(const std::string& theirs) {
  const std::string& ours = abi_text();
  std::size_t begin = 0;
  for (std::size_t end; (end = ours.find(';', begin)) != std::string::npos; begin = end + 1) {
    const std::string part = ours.substr(begin, end - begin);
    if (theirs.compare(begin, part.size() + 1, part + ";") == 0) continue;
    const std::size_t theirs_end = theirs.find(';', begin);
    const std::string other = begin < theirs.size() ? theirs.substr(begin, theirs_end - begin) : "nothing";
    return "was built with " + other + ", here is " + part;
  }
  return "was built with more than is here: " + theirs.substr(begin);
}

// Adds the library's environments to the registry; returns their names. A library is loaded once, and stays.
// Throws std::runtime_error that says why it cannot be loaded.
inline std::vector<std::string> load_library(const std::string& path) {
  struct Loaded {
    std::string identity;
    std::vector<std::string> names;
  };
  static std::map<std::string, Loaded> libraries;
  const std::string identity = file_identity(path);
  if (identity.empty()) throw std::runtime_error("no such file");
  if (const auto found = libraries.find(path); found != libraries.end()) {
    if (found->second.identity == identity) return found->second.names;
    throw std::runtime_error("was built again since this process has loaded it: start anew");
  }
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) throw std::runtime_error(std::string("cannot be loaded: ") + dlerror());
  const auto abi = reinterpret_cast<const char* (*)()>(dlsym(handle, "dist_trainer_abi"));
  const auto theirs = reinterpret_cast<void* (*)()>(dlsym(handle, "dist_trainer_registry"));
  if (abi == nullptr || theirs == nullptr) {
    throw std::runtime_error(
        "has no environments: compile it with the flags that `python -m dist_trainer includes` prints");
  }
  if (abi() != abi_text()) throw std::runtime_error(abi_difference(abi()) + ": build it again");
  Loaded loaded{identity, {}};
  const auto& entries = *static_cast<const std::map<std::string, EnvEntry>*>(theirs());
  for (const auto& [name, entry] : entries) {
    if (registry().contains(name)) {
      throw std::runtime_error("has an environment " + name + ", of which name there is another: rename it");
    }
    loaded.names.push_back(name);
  }
  registry().insert(entries.begin(), entries.end());
  return (libraries[path] = loaded).names;
}

}  // namespace dist_trainer
