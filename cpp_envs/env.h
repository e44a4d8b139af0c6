// The contract between an environment and the pool.
//
// An environment is a plain struct E, one header in envs/, that ends with REGISTER_ENV(E, "name"):
//
//   struct E {
//     using Observation = float;          // or std::uint8_t
//     using Action = std::int32_t;        // discrete and multi-discrete; float for continuous (Box) actions
//     struct Params {                     // declared once: default, range and meaning
//       int size = 8;
//       void visit(auto&& field) { field("size", size, 2, 64, "side of the board"); }
//     };
//     static Spec spec(const Params&);
//     void reset(const Params&, Rng&);                              // begins an episode
//     StepResult step(const Params&, std::int32_t action, Rng&);    // one agent, one discrete action; or
//     StepResult step(const Params&, std::span<const Action> action, Rng&);                        // one agent; or
//     void step(const Params&, std::span<const Action> actions, std::span<StepResult>, Rng&);      // many agents
//     void observe(const Params&, std::span<Observation> out) const;   // (agents, *observation_shape), every entry
//     void metrics(const Params&, std::span<float> out) const;         // optional: (agents, metrics) at episode end
//     void legal(const Params&, std::span<bool> out) const;            // optional: (agents, choices), see below
//     void resting(const Params&, std::span<bool> out) const;          // optional: (agents,), see below
//     void render(const Params&, Canvas&) const;                       // optional, with Spec::picture: see below
//     void places(const Params&, std::span<Point> out) const;          // optional, with render: (agents,), see below
//   };
//
// Discrete actions that are not always all legal: `legal` writes true or false for every choice of every component, one
// component's after the other's, at least one of each true. What is not legal is never sampled, neither in acting nor
// in learning, and the pool refuses it.
//
// Agents that are dead, and come back later in the same episode of the environment: `resting` says who does not act
// next. What is shown to one and chosen for one then counts for nothing, in no loss and no statistic, and its rewards
// must be 0. It terminates when it dies; when it is back, a new episode of its own begins, with a memory that is empty.
//
// The state is trivially copyable, so that a snapshot is a memcpy. Everything random comes from the Rng handed in; an
// environment never owns one. The pool owns seeds, auto-reset, final observations, statistics, buffers and threads.
//
// A picture shows a person the whole state. spec() gives its size, `.picture = {320, 240}`, and render() draws it on a
// canvas that is filled with palette::kBackground. What there is to draw with is in canvas.h, picture.h and palette.h:
//
//   void render(const Params& params, Canvas& canvas) const {
//     draw_header(canvas, Label("APPLES ", eaten, " OF ", params.apples), Label("STEP ", steps));
//     const Board board(below_header(canvas), params.size, params.size);
//     canvas.rect(board.box(), palette::kPanel);
//     canvas.disc(board.cell(apple_x, apple_y).center(), 0.3F * board.side(), palette::kGold);
//     const Pose agent(board.cell(x, y).center(), angle);
//     canvas.polygon({agent(9, 0), agent(-6, -6), agent(-6, 6)}, palette::kAgent);
//   }
//
// Where there are many agents, `places` says where in the picture each one is, kNowhere if it is not there: so that a
// click selects one, and a mark shows which.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "picture.h"
#include "rng.h"

namespace dist_trainer {

// What one agent gets for one action. `terminated`: the episode ended by the rules (no future value). `truncated`: it
// was cut off (a time limit), and the value of its final observation is bootstrapped. Agents may terminate one by one
// (the environment then respawns them itself); truncation ends the episode of every agent at once.
struct StepResult {
  float reward = 0;
  bool terminated = false;
  bool truncated = false;
  bool done() const { return terminated || truncated; }
};

enum class ActionKind { kDiscrete, kMultiDiscrete, kContinuous };

struct ActionSpec {
  ActionKind kind = ActionKind::kDiscrete;
  std::vector<int> sizes;        // choices of each component; empty for continuous actions
  std::vector<float> low, high;  // bounds of each component; empty for discrete actions

  static ActionSpec discrete(int choices) { return {ActionKind::kDiscrete, {choices}, {}, {}}; }
  static ActionSpec multi_discrete(std::vector<int> sizes) {
    return {ActionKind::kMultiDiscrete, std::move(sizes), {}, {}};
  }
  static ActionSpec continuous(std::vector<float> low, std::vector<float> high) {
    return {ActionKind::kContinuous, {}, std::move(low), std::move(high)};
  }
  int components() const { return static_cast<int>(kind == ActionKind::kContinuous ? low.size() : sizes.size()); }
  int choices() const {  // of all components
    int sum = 0;
    for (int size : sizes) sum += size;
    return sum;
  }
};

// In pixels; without a picture both are 0.
struct PictureSize {
  int width = 0, height = 0;
};

struct Spec {
  std::vector<int> observation_shape;  // of one agent
  ActionSpec action;
  int num_agents = 1;
  int teams = 1;  // in so many equal parts the agents play against each other: the first ones, the next ones, ...
  std::vector<std::string> metrics;  // names of what E::metrics writes, averaged over episodes
  // What every entry of an observation lies within. Without bounds of their own floats may be any finite number.
  float observation_low = -std::numeric_limits<float>::max(), observation_high = std::numeric_limits<float>::max();
  PictureSize picture{};  // what E::render draws

  int observation_size() const {
    int size = 1;
    for (int extent : observation_shape) size *= extent;
    return size;
  }
};

template <class E>
concept HasLegal =
    requires(const E& env, const typename E::Params& params, std::span<bool> out) { env.legal(params, out); };

template <class E>
concept HasResting =
    requires(const E& env, const typename E::Params& params, std::span<bool> out) { env.resting(params, out); };

template <class E>
concept Environment =
    std::is_trivially_copyable_v<E> && std::is_default_constructible_v<E> &&
    (std::is_same_v<typename E::Observation, float> || std::is_same_v<typename E::Observation, std::uint8_t>) &&
    (std::is_same_v<typename E::Action, float> || std::is_same_v<typename E::Action, std::int32_t>) &&
    requires(E env, const E& fixed, const typename E::Params& params, Rng& rng,
             std::span<typename E::Observation> observation) {
      { E::spec(params) } -> std::same_as<Spec>;
      env.reset(params, rng);
      fixed.observe(params, observation);
    };

template <class E>
concept HasPicture = requires(const E& fixed, const typename E::Params& params, Canvas& canvas) {
  { fixed.render(params, canvas) } -> std::same_as<void>;
};

template <class E>
concept HasPlaces =
    requires(const E& fixed, const typename E::Params& params, std::span<Point> out) { fixed.places(params, out); };

}  // namespace dist_trainer
