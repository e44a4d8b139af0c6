// The bare loop that benchmarks/pool.py compares the pool with: one thread, no pool, plain arrays. For every step, for
// every environment: step, final observation if truncated, reset if the episode is over, observe, and draw the noise of
// the next action, all by the same structs and the same generator as the pool's. It checks no action, keeps no
// statistics, and knows nothing of Python, threads or snapshots.
//
// Usage: pool_bare ENVIRONMENT ENVIRONMENTS STEPS ROUNDS ACTIONS RESULT
//   ACTIONS  a file of int32 (any number of rows, ENVIRONMENTS): row i % rows is taken at step i
//   RESULT   where the observations and the noise after the last step are written, to be compared with the pool's
// Prints the seconds of each round of STEPS steps.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "envs/breakout.h"
#include "envs/cartpole.h"

namespace dist_trainer {
namespace {

constexpr std::uint64_t kSeed = 1;

template <Environment E>
struct Bare {
  explicit Bare(std::size_t envs)
      : size(static_cast<std::size_t>(E::spec(params).observation_size())),
        states(envs),
        rewards(envs),
        noise(envs),
        observations(envs * size),
        final_observations(envs * size),
        terminated(envs),
        truncated(envs) {
    for (std::size_t env = 0; env < envs; ++env) {
      reset(env, 0);
      observe(env, 0);
    }
  }

  static Rng rng(std::size_t env, std::uint64_t step, Purpose purpose) {
    return {kSeed, static_cast<std::uint32_t>(env), step, purpose};
  }

  void reset(std::size_t env, std::uint64_t step) {
    Rng stream = rng(env, step, Purpose::kReset);
    states[env].reset(params, stream);
  }

  void observe(std::size_t env, std::uint64_t step) {
    states[env].observe(params, {&observations[env * size], size});
    noise[env] = rng(env, step, Purpose::kNoise).uniform();
  }

  void step_all(const std::int32_t* actions, std::uint64_t step) {
    for (std::size_t env = 0; env < states.size(); ++env) {
      Rng stream = rng(env, step, Purpose::kStep);
      const StepResult result = states[env].step(params, actions[env], stream);
      rewards[env] = result.reward;
      terminated[env] = result.terminated;
      truncated[env] = result.truncated;
      if (result.truncated) states[env].observe(params, {&final_observations[env * size], size});
      if (result.done()) reset(env, step + 1);
      observe(env, step + 1);
    }
  }

  typename E::Params params;
  std::size_t size;  // of an observation
  std::vector<E> states;
  std::vector<float> rewards, noise, observations, final_observations;
  std::vector<std::uint8_t> terminated, truncated;
};

std::vector<std::int32_t> read_actions(const char* path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  std::vector<std::int32_t> actions(static_cast<std::size_t>(file.tellg()) / sizeof(std::int32_t));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(actions.data()), static_cast<std::streamsize>(actions.size() * 4));
  return actions;
}

template <Environment E>
void run(std::size_t envs, int steps, int rounds, const std::vector<std::int32_t>& actions, const char* result) {
  Bare<E> bare(envs);
  const std::size_t rows = actions.size() / envs;
  std::uint64_t step = 0;
  for (int round = 0; round < rounds; ++round) {
    const auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < steps; ++i, ++step) bare.step_all(&actions[step % rows * envs], step);
    std::printf("%.9f\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  }
  std::ofstream file(result, std::ios::binary);
  for (const auto* values : {&bare.observations, &bare.noise}) {
    file.write(reinterpret_cast<const char*>(values->data()), static_cast<std::streamsize>(values->size() * 4));
  }
}

}  // namespace
}  // namespace dist_trainer

int main(int argc, char** argv) {
  using namespace dist_trainer;
  if (argc != 7) {
    std::fprintf(stderr, "usage: %s cartpole|breakout ENVIRONMENTS STEPS ROUNDS ACTIONS RESULT\n", argv[0]);
    return 2;
  }
  const auto actions = read_actions(argv[5]);
  const auto loop = argv[1] == std::string("cartpole") ? run<CartPole> : run<Breakout>;
  loop(static_cast<std::size_t>(std::atoi(argv[2])), std::atoi(argv[3]), std::atoi(argv[4]), actions, argv[6]);
}
