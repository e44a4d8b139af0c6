// What a shared library of environments shows of itself; load_library.h looks for it. Included in front of each of its
// sources by the flags that `python -m dist_trainer includes` prints.
#pragma once

#include "abi.h"

extern "C" {
__attribute__((used, visibility("default"))) inline const char* dist_trainer_abi() {
  return dist_trainer::abi_text().c_str();
}
__attribute__((used, visibility("default"))) inline void* dist_trainer_registry() { return &dist_trainer::registry(); }
}
