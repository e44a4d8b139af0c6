// What code must have in common that shares the objects of these headers, though it was compiled at different times:
// the module, the program of worker processes, and libraries of environments. As text, so that it can be compared
// before anything else is shared.
#pragma once

#include <cstddef>
#include <string>

#include "registry.h"

#ifndef DIST_TRAINER_HEADERS
#error "compile with the flags that `python -m dist_trainer includes` prints"
#endif
#define DIST_TRAINER_TEXT2(token) #token
#define DIST_TRAINER_TEXT(token) DIST_TRAINER_TEXT2(token)

namespace dist_trainer {

// "name=value;" for each of: a digest of the headers' text; the standard library, whose classes they use; sizes, which
// a compiler's options may change.
inline const std::string& abi_text() {
#if defined(_LIBCPP_VERSION)
  constexpr const char* library = "libc++ " DIST_TRAINER_TEXT(_LIBCPP_ABI_VERSION);
#else
  constexpr const char* library = "libstdc++ with _GLIBCXX_USE_CXX11_ABI=" DIST_TRAINER_TEXT(_GLIBCXX_USE_CXX11_ABI);
#endif
  static const std::string text = [] {
    std::string all = "headers=" DIST_TRAINER_TEXT(DIST_TRAINER_HEADERS) ";standard library=";
    all.append(library).append(";sizes=");
    for (const std::size_t size :
         {sizeof(void*), sizeof(ActionKind), sizeof(StepResult), sizeof(Rng), sizeof(Spec), sizeof(PoolConfig),
          sizeof(EnvEntry), sizeof(Pool), sizeof(WorkerControl), sizeof(WorkerSlot), sizeof(WorkerProcesses)}) {
      all.append(std::to_string(size)).append(",");
    }
    return all.append(";");
  }();
  return text;
}

}  // namespace dist_trainer
