// Probe of the contract's optional parts: choices that are not always legal, and agents that die, rest and come back.
// Everything it does follows from clocks that it shows, so that tests know every number in advance.
#pragma once

#include "../registry.h"

namespace dist_trainer {

// Each agent chooses a number of 0 to 4 and one of 0 to 2, of which those that divide its clock are not legal (0 always
// is). It is paid 1 for the largest legal first number. Clocks begin anywhere in a life; agent a dies after step
// life + a of its own, and rests for `rest` steps; who rests is shown 9s.
struct ProbeMasks {
  using Observation = float;
  using Action = std::int32_t;
  static constexpr int kAgents = 3, kFirst = 5, kSecond = 3;

  struct Params {
    int life = 7;
    int rest = 3;
    int episode_steps = 40;
    void visit(auto&& field) {
      field("life", life, 1, 1000, "steps of the first agent's life; each next one's is a step longer");
      field("rest", rest, 1, 1000, "steps that a dead agent waits");
      field("episode_steps", episode_steps, 1, 1'000'000, "steps until all are truncated");
    }
  };

  std::int32_t steps;
  std::int32_t clocks[kAgents];  // steps of this life, from 1; while resting minus the steps that are left of that

  static Spec spec(const Params&) {
    return {.observation_shape = {2},
            .action = ActionSpec::multi_discrete({kFirst, kSecond}),
            .num_agents = kAgents,
            .metrics = {"clock"}};
  }

  void reset(const Params& params, Rng& rng) {
    steps = 0;
    for (std::int32_t& clock : clocks) clock = 1 + rng.below(params.life);
  }

  static bool is_legal(std::int32_t clock, int number) { return number == 0 || clock % number != 0; }

  void step(const Params& params, std::span<const Action> actions, std::span<StepResult> results, Rng&) {
    ++steps;
    const bool over = steps >= params.episode_steps;
    for (int agent = 0; agent < kAgents; ++agent) {
      const auto i = static_cast<std::size_t>(agent);
      StepResult& result = results[i] = {.reward = 0, .terminated = false, .truncated = over};
      std::int32_t& clock = clocks[agent];
      if (clock < 0) {
        clock = clock == -1 ? 1 : clock + 1;
        continue;
      }
      int best = kFirst - 1;
      while (!is_legal(clock, best)) --best;
      result.reward = static_cast<float>(actions[2 * i] == best);
      ++clock;
      if (clock > params.life + agent && !over) {
        result.terminated = true;
        clock = -params.rest;
      }
    }
  }

  void observe(const Params&, std::span<float> out) const {
    for (std::size_t i = 0; i < kAgents; ++i) {
      out[2 * i] = clocks[i] < 0 ? 9 : static_cast<float>(clocks[i]);
      out[2 * i + 1] = clocks[i] < 0 ? 9 : static_cast<float>(i);
    }
  }

  void legal(const Params&, std::span<bool> out) const {
    bool* next = out.data();
    for (const std::int32_t clock : clocks) {
      for (int number = 0; number < kFirst; ++number) *next++ = is_legal(clock, number);
      for (int number = 0; number < kSecond; ++number) *next++ = is_legal(clock, number);
    }
  }

  void resting(const Params&, std::span<bool> out) const {
    for (std::size_t i = 0; i < kAgents; ++i) out[i] = clocks[i] < 0;
  }

  void metrics(const Params&, std::span<float> out) const {
    for (std::size_t i = 0; i < kAgents; ++i) out[i] = static_cast<float>(clocks[i]);
  }
};

REGISTER_ENV(ProbeMasks, "probe_masks");

}  // namespace dist_trainer
