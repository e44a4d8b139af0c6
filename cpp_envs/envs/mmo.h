// An MMO: a hundred agents and as many creatures in one world that is drawn anew for each episode. They gather, fight,
// forge, eat, trade, and die; who dies begins a new life in town. Every rule and number is in cpp_envs/MMO.md; they
// live in parts/mmo_rules.h, what happens in a step in parts/mmo_world.h.
// The first metric is that of a life when it ends: the smaller of its combat level and its best profession's.
// Solved: what the script reaches (parts/mmo_script.h).
#pragma once

#include "../registry.h"
#include "parts/mmo_picture.h"
#include "parts/mmo_script.h"
#include "parts/mmo_view.h"

namespace dist_trainer {

struct Mmo {
  using Observation = std::uint8_t;
  using Action = std::int32_t;

  struct Params {
    int agents = 128;
    int max_steps = 1024;
    int duels = 1;
    int oracle = 0;
    void visit(auto&& field) {
      field("agents", agents, 1, mmo::kMostAgents, "in one world");
      field("max_steps", max_steps, 16, 1'000'000, "until the world ends, and with it all lives");
      field("duels", duels, 0, 1, "1: outside the town agents may fight each other");
      field("oracle", oracle, 0, 1, "1: a script acts for all agents, whatever they choose");
    }
  };

  mmo::World world;

  static Spec spec(const Params& params) {
    return {.observation_shape = {mmo::kBytes},
            .action = ActionSpec::multi_discrete({mmo::kDirections, mmo::kActs, mmo::kGoods, mmo::kPrices}),
            .num_agents = params.agents,
            .metrics = {"min_comb_prof", "combat", "profession", "gold", "equipment", "sold", "hunger", "thirst",
                        "by_creature", "by_agent"},
            .picture = mmo::kPicture};
  }

  void reset(const Params& params, Rng& rng) { world.reset(params.agents, rng); }

  // Of each agent {move: none, north, east, south, west; act; good and price of a trade}.
  void step(const Params& params, std::span<const Action> actions, std::span<StepResult> results, Rng& rng) {
    std::array<mmo::Choice, mmo::kMostAgents> choices;
    for (int i = 0; i < params.agents; ++i) {
      const auto at = static_cast<std::size_t>(4 * i);
      choices[static_cast<std::size_t>(i)] =
          params.oracle != 0 ? mmo::Script(world, i, rng).choose()
                             : mmo::Choice{actions[at], actions[at + 1], actions[at + 2], actions[at + 3]};
    }
    std::array<float, mmo::kMostAgents> rewards{};
    std::array<bool, mmo::kMostAgents> died;
    world.step(choices, rewards, died, params.duels != 0, rng);
    for (std::size_t i = 0; i < results.size(); ++i) {
      results[i] = {.reward = rewards[i], .terminated = died[i], .truncated = world.time >= params.max_steps};
    }
  }

  void observe(const Params& params, std::span<std::uint8_t> out) const {
    const mmo::View view(world);
    std::uint8_t* next = out.data();
    for (int i = 0; i < params.agents; ++i) next = view.observe(i, next);
  }

  // Of a life that ended in this step, else as it is now.
  void metrics(const Params& params, std::span<float> out) const {
    auto next = out.begin();
    for (int i = 0; i < params.agents; ++i) {
      const mmo::Record record = world.record_of_step(i);
      for (const float value : {std::min(record.combat, record.profession), record.combat, record.profession,
                                record.gold, record.equipment, record.traded}) {
        *next++ = value;
      }
      for (int cause = 0; cause < mmo::kCauses; ++cause) *next++ = static_cast<float>(record.cause == cause);
    }
  }

  void render(const Params&, Canvas& canvas) const { mmo::draw(world, canvas); }

  void places(const Params&, std::span<Point> out) const {
    const Board board = mmo::board_of(mmo::kPicture.width, mmo::kPicture.height);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = mmo::cell_of(board, world.agents[i].cell).center();
  }
};

REGISTER_ENV(Mmo, "mmo");

}  // namespace dist_trainer
