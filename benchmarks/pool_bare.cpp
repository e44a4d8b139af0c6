// The bare loop that benchmarks/pool.py compares the pool with: one thread, no pool, plain arrays. For every step, for
// every environment: step, final observation if truncated, reset if the episode is over, observe, and draw the noise of
// the next action, all by the same structs and the same generator as the pool's. It checks no action, keeps no
// statistics, and knows nothing of Python, threads or snapshots.
//
// Usage: pool_bare ENVIRONMENT ENVIRONMENTS STEPS ROUNDS ACTIONS RESULT
//   ACTIONS  where the actions are written that are taken, in turn: random ones, (any number, rows, components)
//   RESULT   where the observations and the noise after the last step are written, to be compared with the pool's
// Prints the seconds of each round of STEPS steps.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "registry.h"

namespace dist_trainer {
namespace {

constexpr std::uint64_t kSeed = 1;
constexpr int kTurns = 64;  // of actions, where all are legal

template <Environment E>
class Bare {
 public:
  using Action = typename E::Action;
  using Observation = typename E::Observation;

  explicit Bare(std::size_t envs)
      : agents_(static_cast<std::size_t>(spec_.num_agents)),
        size_(static_cast<std::size_t>(spec_.observation_size()) * agents_),
        draws_(static_cast<std::size_t>(spec_.action.components()) * agents_),
        choices_(static_cast<std::size_t>(spec_.action.choices()) * agents_),
        envs_(envs),
        states_(std::make_unique<E[]>(envs)),
        results_(envs * agents_),
        noise_(envs * draws_),
        observations_(envs * size_),
        final_observations_(envs * size_),
        legal_(std::make_unique<bool[]>(envs * choices_)),
        resting_(std::make_unique<bool[]>(envs * agents_)) {
    for (std::size_t env = 0; env < envs; ++env) {
      reset(env, 0);
      show(env, 0);
    }
  }

  std::size_t actions() const { return envs_ * draws_; }

  void step_all(const Action* actions, std::uint64_t step) {
    for (std::size_t env = 0; env < envs_; ++env) {
      Rng stream = rng(env, step, Purpose::kStep);
      const std::span<StepResult> results(&results_[env * agents()], agents());
      take(env, {actions + env * draws(), draws()}, results, stream);
      bool all_done = true;
      for (const StepResult& result : results) all_done &= result.done();
      if (all_done) {
        if (results[0].truncated) states_[env].observe(params_, {&final_observations_[env * size_], size_});
        reset(env, step + 1);
      }
      show(env, step + 1);
    }
  }

  // Random ones, legal now.
  void choose(std::uint64_t turn, Action* out) const {
    for (std::size_t env = 0; env < envs_; ++env) {
      Rng stream(kSeed + 1, static_cast<std::uint32_t>(env), turn, Purpose::kNoise);
      const bool* allowed = &legal_[env * choices_];
      for (std::size_t i = 0; i < draws_; ++i, ++out) {
        const std::size_t component = i % (draws_ / agents_);
        if constexpr (std::is_same_v<Action, float>) {
          *out = stream.uniform(spec_.action.low[component], spec_.action.high[component]);
        } else {
          const int size = spec_.action.sizes[component];
          *out = stream.below(size);
          if constexpr (HasLegal<E>) {
            while (!allowed[*out]) *out = (*out + 1) % size;
            allowed += size;
          }
        }
      }
    }
  }

  void write(const char* path) const {
    std::ofstream file(path, std::ios::binary);
    const auto put = [&file](const auto& values) {
      file.write(reinterpret_cast<const char*>(values.data()),
                 static_cast<std::streamsize>(values.size() * sizeof(values[0])));
    };
    put(observations_);
    put(noise_);
  }

 private:
  // The first two of the three forms of E::step; see env.h.
  static constexpr bool kOneAction = requires(E env, typename E::Params params, Action action, Rng& rng) {
    { env.step(params, action, rng) } -> std::same_as<StepResult>;
  };
  static constexpr bool kOneAgent =
      kOneAction || requires(E env, typename E::Params params, std::span<const Action> action, Rng& rng) {
        { env.step(params, action, rng) } -> std::same_as<StepResult>;
      };
  std::size_t agents() const { return kOneAgent ? 1 : agents_; }  // known to the compiler where it is one
  std::size_t draws() const { return kOneAction ? 1 : draws_; }

  static Rng rng(std::size_t env, std::uint64_t step, Purpose purpose) {
    return {kSeed, static_cast<std::uint32_t>(env), step, purpose};
  }

  void reset(std::size_t env, std::uint64_t step) {
    Rng stream = rng(env, step, Purpose::kReset);
    states_[env].reset(params_, stream);
  }

  void take(std::size_t env, std::span<const Action> actions, std::span<StepResult> results, Rng& stream) {
    if constexpr (kOneAction) {
      results[0] = states_[env].step(params_, actions[0], stream);
    } else if constexpr (kOneAgent) {
      results[0] = states_[env].step(params_, actions, stream);
    } else {
      states_[env].step(params_, actions, results, stream);
    }
  }

  void show(std::size_t env, std::uint64_t step) {
    states_[env].observe(params_, {&observations_[env * size_], size_});
    if constexpr (HasLegal<E>) states_[env].legal(params_, {&legal_[env * choices_], choices_});
    if constexpr (HasResting<E>) states_[env].resting(params_, {&resting_[env * agents_], agents_});
    Rng stream = rng(env, step, Purpose::kNoise);
    for (std::size_t i = 0; i < draws(); ++i) noise_[env * draws() + i] = stream.uniform();
  }

  const typename E::Params params_{};
  const Spec spec_ = E::spec(params_);
  const std::size_t agents_, size_, draws_, choices_;  // of an environment
  std::size_t envs_;
  std::unique_ptr<E[]> states_;
  std::vector<StepResult> results_;
  std::vector<float> noise_;
  std::vector<Observation> observations_, final_observations_;
  std::unique_ptr<bool[]> legal_, resting_;
};

// Where not all are legal, those of every step, found by playing; the same few in turn otherwise.
template <Environment E>
std::vector<typename E::Action> choose_actions(std::size_t envs, int steps) {
  Bare<E> bare(envs);
  const int turns = HasLegal<E> ? steps : kTurns;
  std::vector<typename E::Action> all(bare.actions() * static_cast<std::size_t>(turns));
  for (int turn = 0; turn < turns; ++turn) {
    auto* actions = &all[bare.actions() * static_cast<std::size_t>(turn)];
    bare.choose(static_cast<std::uint64_t>(turn), actions);
    if (HasLegal<E>) bare.step_all(actions, static_cast<std::uint64_t>(turn));
  }
  return all;
}

template <Environment E>
void run(std::size_t envs, int steps, int rounds, const char* actions_path, const char* result_path) {
  const auto actions = choose_actions<E>(envs, steps * rounds);
  std::ofstream(actions_path, std::ios::binary)
      .write(reinterpret_cast<const char*>(actions.data()), static_cast<std::streamsize>(actions.size() * 4));
  Bare<E> bare(envs);
  const std::size_t turns = actions.size() / bare.actions();
  std::uint64_t step = 0;
  for (int round = 0; round < rounds; ++round) {
    const auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < steps; ++i, ++step) bare.step_all(&actions[step % turns * bare.actions()], step);
    std::printf("%.9f\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  }
  bare.write(result_path);
}

using Run = std::function<void(std::size_t, int, int, const char*, const char*)>;

std::map<std::string, Run>& loops() {
  static std::map<std::string, Run> all;
  return all;
}

}  // namespace
}  // namespace dist_trainer

// The environments register here what runs them bare.
#undef REGISTER_ENV
#define REGISTER_ENV(Type, name) \
  static const bool DIST_TRAINER_JOIN(kBare, __COUNTER__) = ::dist_trainer::loops().emplace(name, run<Type>).second
#include "all_envs.h"  // written by pool.py: includes every header of envs/

int main(int argc, char** argv) {
  namespace dt = dist_trainer;
  const auto found = argc == 7 ? dt::loops().find(argv[1]) : dt::loops().end();
  if (found == dt::loops().end()) {
    std::fprintf(stderr, "usage: %s ENVIRONMENT ENVIRONMENTS STEPS ROUNDS ACTIONS RESULT\n", argv[0]);
    return 2;
  }
  const auto number = [argv](int i) { return std::atoi(argv[i]); };
  found->second(static_cast<std::size_t>(number(2)), number(3), number(4), argv[5], argv[6]);
}
