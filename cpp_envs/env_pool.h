// The pool of one environment type: what happens to each environment in a step.
#pragma once

#include <cmath>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "pool.h"

namespace dist_trainer {

template <Environment E>
class EnvPool final : public Pool {
  using Params = typename E::Params;
  using Action = typename E::Action;
  using Observation = typename E::Observation;

 public:
  EnvPool(PoolConfig config, const Params& params)
      : Pool(std::move(config), E::spec(params), sizeof(E), sizeof(Observation)), params_(params) {
    constexpr bool kFloatActions = std::is_same_v<Action, float>;
    if (kFloatActions != (spec().action.kind == ActionKind::kContinuous)) {
      throw std::logic_error(this->config().name + ": Action is float if, and only if, the actions are continuous");
    }
    results_.resize(static_cast<std::size_t>(rows()));
  }

  ~EnvPool() override { stop_workers(); }  // a step in flight needs what this class owns

  bool observations_are_bytes() const override { return std::is_same_v<Observation, std::uint8_t>; }

 private:
  E& state(int env) const { return *std::launder(reinterpret_cast<E*>(states_ + sizeof(E) * index(env))); }
  static std::size_t index(int env) { return static_cast<std::size_t>(env); }
  std::size_t row(int env) const { return index(env) * agents(); }

  std::span<Observation> observation_of(int env, std::byte* buffer) const {
    const std::size_t size = agents() * static_cast<std::size_t>(spec_.observation_size());
    return {reinterpret_cast<Observation*>(buffer) + index(env) * size, size};
  }

  void reset_state(int env) {
    std::byte* at = states_ + sizeof(E) * index(env);
    std::memset(at, 0, sizeof(E));  // padding too: equal states have equal bytes
    E* fresh = new (at) E;
    Rng stream = rng(env, Purpose::kReset);
    fresh->reset(params_, stream);
  }

  void observe(int env) {
    state(env).observe(params_, observation_of(env, observations));
    draw_noise(env);
  }

  void reset_envs(int first, int last) override {
    for (int env = first; env < last; ++env) {
      reset_state(env);
      observe(env);
    }
  }

  void observe_envs(int first, int last) override {
    for (int env = first; env < last; ++env) observe(env);
  }

  void step_envs(int first, int last) override {
    for (int env = first; env < last; ++env) {
      act(env);
      ++steps_[env];
      if (record(env)) reset_state(env);
      observe(env);
    }
  }

  void act(int env) {
    const auto components = static_cast<std::size_t>(spec_.action.components());
    Action* chosen = reinterpret_cast<Action*>(actions) + row(env) * components;
    for (std::size_t i = 0; i < agents() * components; ++i) check_action(env, i % components, chosen[i]);
    Rng stream = rng(env, Purpose::kStep);
    const std::span<StepResult> results(&results_[row(env)], agents());
    E& environment = state(env);
    if constexpr (requires {
                    { environment.step(params_, *chosen, stream) } -> std::same_as<StepResult>;
                  }) {
      results[0] = environment.step(params_, *chosen, stream);
    } else if constexpr (requires(std::span<const Action> action) {
                           { environment.step(params_, action, stream) } -> std::same_as<StepResult>;
                         }) {
      results[0] = environment.step(params_, std::span<const Action>(chosen, components), stream);
    } else {
      environment.step(params_, std::span<const Action>(chosen, agents() * components), results, stream);
    }
  }

  void check_action(int env, std::size_t component, Action& action) const {
    if constexpr (std::is_same_v<Action, float>) {
      const float low = spec_.action.low[component], high = spec_.action.high[component];
      if (std::isnan(action)) throw invalid_action(env, component, "nan", "a number");
      action = action < low ? low : action > high ? high : action;  // a Gaussian has no bounds, the Box has
    } else {
      const int size = spec_.action.sizes[component];
      if (action < 0 || action >= size) {
        throw invalid_action(env, component, std::to_string(action), "0 to " + std::to_string(size - 1));
      }
    }
  }
  std::out_of_range invalid_action(int env, std::size_t component, const std::string& value,
                                   const std::string& valid) const {
    return std::out_of_range(config_.name + ": action component " + std::to_string(component) + " of environment " +
                             std::to_string(global_id(env)) + " is " + value + ", must be " + valid);
  }

  // Writes the results to the buffers and the statistics; true if the environment must be reset.
  bool record(int env) {
    std::size_t done_agents = 0;
    bool any_truncated = false;
    for (std::size_t agent = 0; agent < agents(); ++agent) {
      const std::size_t i = row(env) + agent;
      const StepResult& result = results_[i];
      rewards[i] = result.reward;
      terminated[i] = result.terminated;
      truncated[i] = result.truncated && !result.terminated;
      episodes_[i].return_sum += static_cast<double>(result.reward);
      ++episodes_[i].length;
      done_agents += result.done();
      any_truncated |= truncated[i];
    }
    if (done_agents == 0) return false;
    if (any_truncated) {
      if (done_agents < agents()) {
        throw std::logic_error(config_.name + ": truncation must end the episode of all agents at once");
      }
      state(env).observe(params_, observation_of(env, final_observations));
    }
    finish_episodes(env);
    return done_agents == agents();
  }

  void finish_episodes(int env) {
    double* finished = statistics_of(env);
    const std::size_t num_metrics = spec_.metrics.size();
    std::vector<float> values(agents() * num_metrics);  // empty, hence free, where there are no metrics
    if constexpr (requires(const E& fixed, std::span<float> out) { fixed.metrics(params_, out); }) {
      state(env).metrics(params_, values);
    }
    for (std::size_t agent = 0; agent < agents(); ++agent) {
      const std::size_t i = row(env) + agent;
      if (!results_[i].done()) continue;
      finished[0] += 1;
      finished[1] += episodes_[i].return_sum;
      finished[2] += static_cast<double>(episodes_[i].length);
      for (std::size_t m = 0; m < num_metrics; ++m) {
        finished[3 + m] += static_cast<double>(values[agent * num_metrics + m]);
      }
      episodes_[i] = Episode{};
    }
  }

  const Params params_;
  std::vector<StepResult> results_;
};

}  // namespace dist_trainer
