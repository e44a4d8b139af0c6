// A MOBA: two teams of five heroes with roles of their own, three lanes, creeps, towers, an ancient to destroy. Every
// rule and number is in cpp_envs/MOBA.md; they live in parts/moba_rules.h, what happens in a step in
// parts/moba_world.h. With `opponent` there are five agents against a script of that strength; without, ten: self-play.
// All agents see the map as the team in the south-west sees it. Dead heroes wait, and have one legal choice.
// Solved: half of the points (1 for a win) against the strongest script, which is what that script reaches.
#pragma once

#include "../registry.h"
#include "parts/moba_picture.h"
#include "parts/moba_script.h"
#include "parts/moba_view.h"

namespace dist_trainer {

struct Moba {
  using Observation = std::uint8_t;
  using Action = std::int32_t;

  struct Params {
    int opponent = 1;
    int oracle = 0;
    int lineup = 0;
    int max_steps = 1000;
    float dense = 1;
    void visit(auto&& field) {
      field("opponent", opponent, 0, 3,
            "0: self-play of ten agents; else the strength of the script of the other team");
      field("oracle", oracle, 0, 3, "0: agents act; else this script acts for them, whatever they choose");
      field("lineup", lineup, 0, 2, "roles: 0 each once in both teams, 1 drawn and the same in both, 2 drawn for each");
      field("max_steps", max_steps, 50, 100'000, "then the team wins whose buildings have more health left");
      field("dense", dense, 0.0F, 10.0F, "factor of all rewards but that of the game's end");
    }
    int agents() const { return opponent == 0 ? moba::kHeroes : moba::kTeamHeroes; }
  };

  moba::World world;

  static Spec spec(const Params& params) {
    return {.observation_shape = {moba::kBytes},
            .action = ActionSpec::multi_discrete({moba::kMoves, moba::kActs, moba::kTargets}),
            .num_agents = params.agents(),
            .teams = params.opponent == 0 ? 2 : 1,
            .metrics = {"points", "towers", "last_hits", "kills", "deaths", "level", "gold"},
            .picture = moba::kPicture};
  }

  void reset(const Params& params, Rng& rng) {
    std::array<std::int32_t, moba::kHeroes> roles;
    for (std::size_t h = 0; h < roles.size(); ++h) {
      const auto k = static_cast<std::int32_t>(h % moba::kTeamHeroes);
      const bool copied = params.lineup == 1 && h >= moba::kTeamHeroes;
      roles[h] = params.lineup == 0 ? k : copied ? roles[h - moba::kTeamHeroes] : rng.below(moba::kTeamHeroes);
    }
    world.reset(params.max_steps, roles);
  }

  // Of each agent {move: none, north and on clockwise; act; target, or item to buy}.
  void step(const Params& params, std::span<const Action> actions, std::span<StepResult> results, Rng& rng) {
    std::array<moba::Choice, moba::kHeroes> choices;
    const bool first = world.time % 2 == 0;  // which team's scripts draw their random numbers first
    for (int n = 0; n < moba::kHeroes; ++n) {
      const int h = first ? n : moba::kHeroes - 1 - n;
      const int script = h < params.agents() ? params.oracle : params.opponent;
      const auto at = static_cast<std::size_t>(3 * h);
      choices[static_cast<std::size_t>(h)] = script > 0 ? moba::Script(world, h, script, rng).choose()
                                                        : moba::Choice{actions[at], actions[at + 1], actions[at + 2]};
    }
    std::array<float, moba::kHeroes> dense{}, end{};
    world.step(choices, dense, end, rng);
    for (std::size_t h = 0; h < results.size(); ++h) {
      results[h] = {.reward = params.dense * dense[h] + end[h], .terminated = world.over, .truncated = false};
    }
  }

  void observe(const Params& params, std::span<std::uint8_t> out) const {
    for (int team = 0; team < params.agents() / moba::kTeamHeroes; ++team) {
      const moba::View view(world, team);
      for (int k = 0; k < moba::kTeamHeroes; ++k) {
        view.observe(k, &out[static_cast<std::size_t>((team * moba::kTeamHeroes + k) * moba::kBytes)]);
      }
    }
  }

  void legal(const Params& params, std::span<bool> out) const {
    constexpr int kChoices = moba::kMoves + moba::kActs + moba::kTargets;
    for (int h = 0; h < params.agents(); ++h) moba::write_legal(world, h, &out[static_cast<std::size_t>(h * kChoices)]);
  }

  void metrics(const Params& params, std::span<float> out) const {
    auto next = out.begin();
    for (int h = 0; h < params.agents(); ++h) {
      const moba::Hero& hero = world.heroes[static_cast<std::size_t>(h)];
      const int team = h / moba::kTeamHeroes;
      int towers = 0;
      for (int b = 1; b < moba::kTeamBuildings; ++b) towers += !world.building(1 - team, b).alive();
      *next++ = world.winner == moba::kNobody ? 0.5F : static_cast<float>(world.winner == team);
      for (const int count : {towers, hero.last_hits, hero.kills, hero.deaths, hero.level, hero.earned}) {
        *next++ = static_cast<float>(count);
      }
    }
  }

  void render(const Params&, Canvas& canvas) const { moba::draw(world, canvas); }

  void places(const Params&, std::span<Point> out) const {
    const Board board = moba::board_of(moba::kPicture.width, moba::kPicture.height);
    for (std::size_t h = 0; h < out.size(); ++h) {
      const moba::Unit& body = world.unit(moba::Units::unit_of_hero(static_cast<int>(h)));
      out[h] = body.alive() ? board.cell(body.cell.x, body.cell.y).center() : kNowhere;
    }
  }
};

REGISTER_ENV(Moba, "moba");

}  // namespace dist_trainer
