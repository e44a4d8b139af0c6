// Plays random steps of the large worlds and checks, after every one, what must hold whatever is done: each invariant
// is recomputed from the rest of the state, not read from a counter that the same code keeps.
//
// Usage: exercise_worlds [agents' steps per world]
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>

#include "mmo_invariants.h"
#include "moba_invariants.h"

int main(int argc, char** argv) {
  const long long steps = argc > 1 ? std::atoll(argv[1]) : 200'000;
  try {
    dist_trainer::moba::exercise(steps);
    dist_trainer::mmo::exercise(steps);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "exercise_worlds: %s\n", error.what());
    return 1;
  }
  return 0;
}
