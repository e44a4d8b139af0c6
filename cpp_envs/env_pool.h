// The pool of one environment type: what happens to each environment in a step.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "pool.h"

namespace dist_trainer {

template <Environment E>
class EnvPool final : public Pool {
  using Params = typename E::Params;
  using Action = typename E::Action;
  using Observation = typename E::Observation;

  // The three forms of E::step; see env.h.
  static constexpr bool kOneAction = requires(E env, const Params& params, Action action, Rng& rng) {
    { env.step(params, action, rng) } -> std::same_as<StepResult>;
  };
  static constexpr bool kOneAgent =
      kOneAction || requires(E env, const Params& params, std::span<const Action> action, Rng& rng) {
        { env.step(params, action, rng) } -> std::same_as<StepResult>;
      };

 public:
  EnvPool(PoolConfig config, const Params& params)
      : Pool(std::move(config), E::spec(params), {HasLegal<E>, HasResting<E>}, sizeof(E), sizeof(Observation)),
        params_(params),
        check_(spec()) {
    constexpr bool kFloatActions = std::is_same_v<Action, float>;
    if (kFloatActions != (spec().action.kind == ActionKind::kContinuous)) {
      throw std::logic_error(this->config().name + ": Action is float if, and only if, the actions are continuous");
    }
    if (kOneAgent && spec().num_agents != 1) {
      throw std::logic_error(this->config().name + ": its step() is that of one agent, its spec() has more");
    }
    if (kOneAction && spec().action.components() != 1) {
      throw std::logic_error(this->config().name + ": its step() takes one number, its actions have more");
    }
    if (HasLegal<E> && spec().action.kind == ActionKind::kContinuous) {
      throw std::logic_error(this->config().name + ": continuous actions are all legal; it has a legal()");
    }
    if (spec().teams < 1 || spec().num_agents % spec().teams != 0) {
      throw std::logic_error(this->config().name + ": " + std::to_string(spec().num_agents) + " agents are not " +
                             std::to_string(spec().teams) + " teams of equal size");
    }
    check_picture(this->config().name, spec().picture, HasPicture<E>, HasPlaces<E>);
    if (!kOneAgent) results_.resize(static_cast<std::size_t>(rows()));
    metrics_.resize(static_cast<std::size_t>(rows()) * spec().metrics.size());
    if (HasResting<E>) rests_ = std::make_unique<bool[]>(static_cast<std::size_t>(rows()));
  }

  ~EnvPool() override { stop_workers(); }  // a step in flight needs what this class owns

  bool observations_are_bytes() const override { return std::is_same_v<Observation, std::uint8_t>; }

 private:
  E& state(int env) const { return *std::launder(reinterpret_cast<E*>(states_ + sizeof(E) * index(env))); }
  static const E& state_at(const std::byte* at) { return *std::launder(reinterpret_cast<const E*>(at)); }
  static std::size_t index(int env) { return static_cast<std::size_t>(env); }
  std::size_t agents() const { return kOneAgent ? 1 : Pool::agents(); }  // known to the compiler where it is one
  std::size_t components() const { return kOneAction ? 1 : static_cast<std::size_t>(spec_.action.components()); }
  std::size_t row(int env) const { return index(env) * agents(); }

  std::span<Observation> observation_of(int env, std::byte* buffer) const {
    const std::size_t size = observation_bytes() / sizeof(Observation) * agents();
    return {reinterpret_cast<Observation*>(buffer) + index(env) * size, size};
  }

  std::span<Observation> observations_of(int first, int last) const {
    const std::span<Observation> one = observation_of(first, observations);
    return {one.data(), one.size() * index(last - first)};
  }

  void reset_state(int env) {
    std::byte* at = states_ + sizeof(E) * index(env);
    std::memset(at, 0, sizeof(E));  // padding too: equal states have equal bytes
    E* fresh = new (at) E;
    Rng stream = rng(env, Purpose::kReset);
    fresh->reset(params_, stream);
  }

  // Observes into `seen`; what else the policy must know goes to its buffers.
  void show(int env, std::span<Observation> seen) {
    state(env).observe(params_, seen);
    if constexpr (HasLegal<E>) {
      const std::span<bool> out(legal + row(env) * choices(), agents() * choices());
      state(env).legal(params_, out);
      check_legal(out);
    }
    if constexpr (HasResting<E>) state(env).resting(params_, {resting + row(env), agents()});
  }

  struct NoNotes {
    void take_note(int, Phase) {}
  };

  // In a thread nothing is noted, and what an environment throws reaches the caller, with its name.
  void run_envs(Job job, int first, int last) override {
    NoNotes notes;
    int env = first;
    try {
      const int chunk = envs_of_a_chunk();
      for (int begin = first; begin < last; begin += chunk) {
        const int end = std::min(begin + chunk, last);
        for (env = begin; env < end; ++env) advance(job, env, notes, observation_of(env, observations));
        if (const auto all = observations_of(begin, end); is_bad(all)) {
          env = begin + static_cast<int>(check_.first_bad(all) / observation_of(0, observations).size());
          throw EnvError(check_.complaint(observation_of(env, observations), agents()));
        }
      }
    } catch (const InvalidAction&) {
      throw;
    } catch (const std::exception& error) {
      throw EnvError(text_of(fault_of(env, error.what()), config_.name, config_.seed));
    }
    draw_noise(first, last);
  }

  // A few environments at a time are observed into memory of this process, checked there, and shown together. Until
  // then their last observations are what is shown: if one of them fails, that is its final one.
  void run_slice(Job job, int first, int last, WorkerSlot& slot) override {
    const std::size_t size = observation_of(0, observations).size();
    const int chunk = envs_of_a_chunk();
    seen_.resize(static_cast<std::size_t>(chunk) * size);
    for (int begin = first, end; begin < last; begin = end) {
      end = std::min(begin + chunk, last);
      const int stepped = std::clamp(slot.stepped.load(), begin, end);  // by a predecessor, which has ended since
      const auto seen = [=, this](int env) { return std::span(seen_).subspan(index(env - begin) * size, size); };
      for (int env = begin; env < stepped; ++env) {
        slot.take_note(env, Phase::kObserve);
        show(env, seen(env));
      }
      for (int env = stepped; env < end; ++env) advance(job, env, slot, seen(env));
      slot.stepped = std::max(slot.stepped.load(), end);  // before the note goes: none may be stepped twice
      slot.clear_note();
      const std::span<Observation> all = std::span(seen_).first(index(end - begin) * size);
      if (is_bad(all)) {
        const int env = begin + static_cast<int>(check_.first_bad(all) / size);
        slot.take_note(env, Phase::kObserve);
        throw EnvError(check_.complaint(seen(env), agents()));
      }
      std::ranges::copy(all, observations_of(begin, end).begin());
      draw_noise(begin, end);
    }
  }

  void recover(Job job, int env, Phase phase, WorkerSlot& slot) override {
    // If it ended its episode by itself, only the beginning of the next one failed.
    if (job == Job::kStep && (phase < Phase::kReset || !has_ended(env))) {
      lose_episode(env, phase == Phase::kFinish);
    } else if (job == Job::kObserve) {
      std::fill_n(episodes_ + row(env), agents(), Episode{});
    }
    ++steps_[env];  // other random numbers than those of the reset that failed
    slot.take_note(env, Phase::kReset);
    reset_state(env);
    slot.clear_note();
  }

  void advance(Job job, int env, auto& notes, std::span<Observation> seen) {
    if (job == Job::kReset) {
      notes.take_note(env, Phase::kReset);
      reset_state(env);
    } else if (job == Job::kStep) {
      notes.take_note(env, Phase::kStep);
      if (step(env, notes)) {
        keep_end(env);
        notes.take_note(env, Phase::kReset);
        reset_state(env);
      }
    }
    notes.take_note(env, Phase::kObserve);
    show(env, seen);
  }

  bool is_bad(std::span<const Observation> seen) const { return config_.check && !check_.all_good(seen); }

  bool has_ended(int env) const {
    for (std::size_t i = row(env); i < row(env) + agents(); ++i) {
      if (!terminated[i] && !truncated[i]) return false;
    }
    return true;
  }

  void draw([[maybe_unused]] const std::byte* state, [[maybe_unused]] Canvas& canvas) const override {
    if constexpr (HasPicture<E>) state_at(state).render(params_, canvas);
  }

  bool find([[maybe_unused]] const std::byte* state, [[maybe_unused]] std::span<Point> out) const override {
    if constexpr (HasPlaces<E>) state_at(state).places(params_, out);
    return HasPlaces<E>;
  }

  // True if the environment must be reset.
  bool step(int env, auto& notes) {
    Action* chosen = reinterpret_cast<Action*>(actions) + row(env) * components();
    for (std::size_t agent = 0; agent < agents(); ++agent) {
      for (std::size_t i = 0; i < components(); ++i) check_action(env, i, chosen[agent * components() + i]);
      if constexpr (HasLegal<E>) check_choice(env, agent, chosen + agent * components());
    }
    Rng stream = rng(env, Purpose::kStep);
    E& environment = state(env);
    if constexpr (kOneAgent) {
      StepResult result;
      if constexpr (kOneAction) {
        result = environment.step(params_, *chosen, stream);
      } else {
        result = environment.step(params_, std::span<const Action>(chosen, components()), stream);
      }
      ++steps_[env];
      return record(env, {&result, 1}, notes);
    } else {
      const std::span<StepResult> results(&results_[row(env)], agents());
      environment.step(params_, std::span<const Action>(chosen, agents() * components()), results, stream);
      ++steps_[env];
      return record(env, results, notes);
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
  InvalidAction invalid_action(int env, std::size_t component, const std::string& value,
                               const std::string& valid) const {
    return InvalidAction(config_.name + ": action component " + std::to_string(component) + " of environment " +
                         std::to_string(global_id(env)) + " is " + value + ", must be " + valid);
  }

  // Every component of every agent needs a choice.
  void check_legal(std::span<const bool> allowed) const {
    const bool* next = allowed.data();
    for (std::size_t agent = 0; agent < agents(); ++agent) {
      for (const int size : spec_.action.sizes) {
        if (std::find(next, next + size, true) == next + size) {
          throw EnvError("legal() leaves agent " + std::to_string(agent) + " nothing to choose");
        }
        next += size;
      }
    }
  }

  void check_choice(int env, std::size_t agent, const Action* chosen) const {
    const bool* allowed = legal + (row(env) + agent) * choices();
    for (std::size_t i = 0; i < components(); allowed += spec_.action.sizes[i++]) {
      if (!allowed[chosen[i]]) throw invalid_action(env, i, std::to_string(chosen[i]), "a legal one");
    }
  }

  // Writes the results to the buffers and the statistics; true if the environment must be reset.
  bool record(int env, std::span<const StepResult> results, auto& notes) {
    std::size_t done_agents = 0;
    bool any_truncated = false;
    for (std::size_t agent = 0; agent < agents(); ++agent) {
      const std::size_t i = row(env) + agent;
      const StepResult& result = results[agent];
      if (config_.check && !std::isfinite(result.reward)) {
        throw EnvError("the reward of agent " + std::to_string(agent) + " is " + number(result.reward) +
                       ", must be finite");
      }
      rewards[i] = result.reward;
      terminated[i] = result.terminated;
      truncated[i] = result.truncated && !result.terminated;
      if (!rested(i)) {
        episodes_[i].return_sum += static_cast<double>(result.reward);
        ++episodes_[i].length;
      }
      done_agents += result.done();
      any_truncated |= truncated[i];
    }
    if constexpr (HasResting<E>) end_rests(env, results);
    if (done_agents == 0) return false;
    if (any_truncated) {
      if (done_agents < agents()) {
        throw std::logic_error(config_.name + ": truncation must end the episode of all agents at once");
      }
      const std::span<Observation> seen = observation_of(env, final_observations);
      state(env).observe(params_, seen);
      if (is_bad(seen)) throw EnvError(check_.complaint(seen, agents()));
    }
    finish_episodes(env, results, notes);
    return done_agents == agents();
  }

  // Before this step.
  bool rested(std::size_t i) const {
    if constexpr (HasResting<E>) return resting[i];
    return false;
  }

  // Who is back has an empty memory: as if its rest had been an episode, of which nothing is known.
  void end_rests(int env, std::span<const StepResult> results) {
    const std::span<bool> now(&rests_[row(env)], agents());
    state(env).resting(params_, now);
    for (std::size_t agent = 0; agent < agents(); ++agent) {
      const std::size_t i = row(env) + agent;
      if (!resting[i]) continue;
      if (results[agent].reward != 0) throw EnvError("agent " + std::to_string(agent) + " rests and is rewarded");
      terminated[i] = results[agent].done() || !now[agent];
      truncated[i] = false;
    }
  }

  void finish_episodes(int env, std::span<const StepResult> results, auto& notes) {
    double* finished = statistics_of(env);
    const std::size_t count = spec_.metrics.size();
    const std::span<float> values(metrics_.data() + row(env) * count, agents() * count);
    if constexpr (requires(const E& fixed, std::span<float> out) { fixed.metrics(params_, out); }) {
      state(env).metrics(params_, values);
    }
    notes.take_note(env, Phase::kFinish);
    for (std::size_t agent = 0; agent < agents(); ++agent) {
      const std::size_t i = row(env) + agent;
      if (!results[agent].done() || rested(i)) continue;
      const Episode episode = std::exchange(episodes_[i], Episode{});
      if (silent[i]) continue;
      finished[0] += 1;
      finished[1] += episode.return_sum;
      finished[2] += static_cast<double>(episode.length);
      for (std::size_t m = 0; m < count; ++m) finished[3 + m] += static_cast<double>(values[agent * count + m]);
    }
  }

  // That are observed before they are checked.
  int envs_of_a_chunk() const {
    return static_cast<int>(std::clamp(kChunkBytes / (observation_bytes() * agents()), 1UL, 64UL));
  }

  static constexpr std::size_t kChunkBytes = 16384;  // of observations: they stay in the first cache

  const Params params_;
  const ObservationCheck<Observation> check_;
  std::vector<Observation> seen_;    // by a worker process, of a chunk of environments
  std::vector<StepResult> results_;  // of each row, where there are several agents
  std::vector<float> metrics_;       // (rows, metrics) scratch, each environment its own
  std::unique_ptr<bool[]> rests_;    // (rows,) likewise, where agents may rest
};

}  // namespace dist_trainer
