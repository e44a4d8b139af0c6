// Probe: an environment with every feature of the contract and no difficulty. What it shows and pays is a plain
// function of what went in, so that tests of the pool, and of a new policy, know every number in advance. An agent is
// shown a target and paid for hitting it with each component of its action; the target is drawn anew every step.
#pragma once

#include <algorithm>
#include <cmath>

#include "../registry.h"

namespace dist_trainer {

// kComponents actions of each of kAgents agents. Bytes: observations are images (uint8) rather than vectors (float).
template <class ActionType, int kAgents, int kComponents, bool kBytes>
struct Probe {
  using Observation = std::conditional_t<kBytes, std::uint8_t, float>;
  using Action = ActionType;
  static constexpr bool kContinuous = std::is_same_v<Action, float>;
  static constexpr int kChoices = 4, kSide = 8;

  struct Params {
    int episode_steps = 16;
    int truncate = 1;
    void visit(auto&& field) {
      field("episode_steps", episode_steps, 1, 1'000'000, "steps of an episode");
      field("truncate", truncate, 0, 1, "whether the last step truncates (1) or terminates (0)");
    }
  };

  std::int32_t steps;
  std::int32_t hits[kAgents];
  std::int32_t targets[kAgents][kComponents];  // 0 .. kChoices - 1

  static Spec spec(const Params&) {
    Spec spec;
    spec.observation_shape = kBytes ? std::vector<int>{1, kSide, kSide} : std::vector<int>{kComponents * kChoices + 1};
    if constexpr (kContinuous) {
      spec.action =
          ActionSpec::continuous(std::vector<float>(kComponents, -2.0F), std::vector<float>(kComponents, 2.0F));
    } else if constexpr (kComponents == 1) {
      spec.action = ActionSpec::discrete(kChoices);
    } else {
      spec.action = ActionSpec::multi_discrete(std::vector<int>(kComponents, kChoices));
    }
    spec.num_agents = kAgents;
    spec.metrics = {"hits"};
    return spec;
  }

  void reset(const Params&, Rng& rng) {
    steps = 0;
    std::ranges::fill(hits, 0);
    draw_targets(rng);
  }

  void step(const Params& params, std::span<const Action> actions, std::span<StepResult> results, Rng& rng) {
    ++steps;
    const bool over = steps >= params.episode_steps;
    for (int agent = 0; agent < kAgents; ++agent) {
      float reward = 0;
      for (int component = 0; component < kComponents; ++component) {
        const Action action = actions[static_cast<std::size_t>(agent * kComponents + component)];
        const std::int32_t target = targets[agent][component];
        if constexpr (kContinuous) {
          reward += 1 - std::abs(action - point(target));
        } else {
          reward += static_cast<float>(action == target);
        }
      }
      hits[agent] += reward > 0.9F * kComponents;
      results[static_cast<std::size_t>(agent)] = {
          .reward = reward, .terminated = over && params.truncate == 0, .truncated = over && params.truncate == 1};
    }
    draw_targets(rng);
  }

  // Vectors: each target one-hot, then the step within the episode. Images: one bright column per target, the step in
  // the last pixel.
  void observe(const Params&, std::span<Observation> out) const {
    std::ranges::fill(out, Observation{0});
    const std::size_t size = out.size() / kAgents;
    for (std::size_t agent = 0; agent < kAgents; ++agent) {
      Observation* mine = &out[agent * size];
      for (int component = 0; component < kComponents; ++component) {
        const int at = component * kChoices + targets[agent][component];
        if constexpr (kBytes) {
          for (int y = 0; y < kSide - 1; ++y) mine[y * kSide + at % kSide] = 255;
        } else {
          mine[at] = 1;
        }
      }
      mine[size - 1] = static_cast<Observation>(kBytes ? std::min(steps, 255) : steps);
    }
  }

  void metrics(const Params&, std::span<float> out) const {
    for (std::size_t agent = 0; agent < kAgents; ++agent) out[agent] = static_cast<float>(hits[agent]);
  }

  // Where on the real line the continuous action should go: -1.5, -0.5, 0.5, 1.5.
  static float point(std::int32_t target) { return static_cast<float>(target) - 0.5F * (kChoices - 1); }

 private:
  void draw_targets(Rng& rng) {
    for (auto& row : targets) {
      for (auto& target : row) target = rng.below(kChoices);
    }
  }
};

using ProbeDiscrete = Probe<std::int32_t, 1, 1, false>;
using ProbeMultiDiscrete = Probe<std::int32_t, 3, 2, false>;
using ProbeContinuous = Probe<float, 1, 2, false>;
using ProbeImage = Probe<std::int32_t, 2, 1, true>;
REGISTER_ENV(ProbeDiscrete, "probe_discrete");
REGISTER_ENV(ProbeMultiDiscrete, "probe_multi_discrete");
REGISTER_ENV(ProbeContinuous, "probe_continuous");
REGISTER_ENV(ProbeImage, "probe_image");

}  // namespace dist_trainer
