// What holds in every state of the MOBA.
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>

#include "envs/parts/moba_script.h"
#include "envs/parts/moba_view.h"

namespace dist_trainer::moba {

inline void require(bool holds, const char* what, int who) {
  if (!holds) throw std::runtime_error(std::string("moba: ") + what + " (" + std::to_string(who) + ")");
}

// Nobody is in two places, nobody shares one, nobody is in the woods; what teams see is what is there.
inline void check_places(const World& world) {
  std::array<std::uint8_t, kCells> occupant;
  std::array<std::array<std::uint8_t, kCells>, 2 * kTeams> view{};
  occupant.fill(Units::kClosed);
  for (int team = 0; team < kTeams; ++team) view[Units::index(2 * team)].fill(Units::kClosed);
  for (int y = 0; y < kSide; ++y) {
    for (int x = 0; x < kSide; ++x) {
      if (!map().open({x, y})) continue;
      occupant[Cell{x, y}.at()] = Units::kFree;
      for (int team = 0; team < kTeams; ++team) view[Units::index(2 * team)][Cell{x, y}.seen_by(team).at()] = 0;
    }
  }
  for (int i = 0; i < kTeams * kTeamUnits; ++i) {
    const Unit& unit = world.unit(i);
    require(unit.health >= 0 && unit.health <= unit.most_health, "health", i);
    require(unit.ready_in >= 0 && unit.ready_in <= 2 && unit.stunned >= 0 && unit.stunned <= 3, "a cooldown", i);
    if (Units::is_creep(i)) require(unit.alive() == (i < world.end_of(Units::team_of(i))), "creeps are not packed", i);
    if (!unit.alive()) continue;
    require(occupant[unit.cell.at()] == Units::kFree, "two in one place, or in the woods", i);
    occupant[unit.cell.at()] = static_cast<std::uint8_t>(i + 1);
    const bool building = Units::is_building(i), creep = Units::is_creep(i);
    view[Units::index(2 * Units::team_of(i))][unit.cell.seen_by(Units::team_of(i)).at()] = building ? 192
                                                                                           : creep  ? 64
                                                                                                    : 128;
    const int enemy = 1 - Units::team_of(i);
    view[Units::index(2 * enemy + 1)][unit.cell.seen_by(enemy).at()] = building ? 255 : creep ? 85 : 170;
  }
  require(occupant == world.occupant, "the map of who is where", 0);
  for (std::size_t plane = 0; plane < view.size(); ++plane) {
    require(view[plane] == world.view[plane], "what a team sees", static_cast<int>(plane));
  }
}

// Gold and items have come from somewhere and gone somewhere; bodies are what level and items make them.
inline void check_heroes(const World& world) {
  for (int h = 0; h < kHeroes; ++h) {
    const Hero& hero = world.heroes[Units::index(h)];
    const Unit& body = world.unit(Units::unit_of_hero(h));
    const Role& role = kRoles[Units::index(hero.role)];
    require((hero.respawn > 0) != body.alive(), "dead and alive", h);
    require(hero.level >= 1 && hero.level <= kMaxLevel && hero.experience >= 0 &&
                (hero.level == kMaxLevel || hero.experience < 60 * hero.level),
            "experience", h);
    require(hero.mana >= 0 && hero.mana <= hero.most_mana && hero.shield >= 0, "mana, or a shield", h);
    require(hero.shield_left >= 0 && hero.shield_left <= kShieldTime, "time of a shield", h);
    for (int s = 0; s < 3; ++s) {
      const int left = hero.cooldown[Units::index(s)];
      require(left >= 0 && left <= role.skills[Units::index(s)].cooldown, "cooldown of a skill", h);
    }
    int spent = kWares[kElixir].price * (hero.items[kElixir] + hero.drunk);
    for (int item = 0; item < kElixir; ++item) {
      const int n = hero.items[Units::index(item)];
      require(n >= 0 && n <= kWares[Units::index(item)].most, "items", h);
      spent += n * kWares[Units::index(item)].price + n * (n - 1) / 2 * kWares[Units::index(item)].price_growth;
    }
    require(hero.items[kElixir] >= 0 && hero.items[kElixir] <= kWares[kElixir].most, "elixirs", h);
    require(hero.gold >= 0 && hero.gold == hero.earned - spent, "gold is not what was earned less what things cost", h);
    int known = kStartGold + world.time / kGoldEvery + kLastHitGold * hero.last_hits;
    for (int b = 1; b < kTeamBuildings; ++b) known += world.building(1 - h / kTeamHeroes, b).alive() ? 0 : kTowerGold;
    const int bounties = hero.earned - known;
    require(bounties % 10 == 0 && bounties >= hero.kills * (kKillGold + kKillLevelGold) &&
                bounties <= hero.kills * (kKillGold + kMaxLevel * kKillLevelGold),
            "gold from nowhere", h);
    require(body.most_health == role.health + (hero.level - 1) * role.health_growth + 70 * hero.items[kMail] &&
                body.damage == role.damage + (hero.level - 1) * role.damage_growth + 7 * hero.items[kBlade] &&
                hero.most_mana == role.mana + (hero.level - 1) * role.mana_growth + 40 * hero.items[kCrystal],
            "a body that is not its level's and items'", h);
  }
}

inline void check_game(const World& world) {
  for (int team = 0; team < kTeams; ++team) {
    for (const int inner : {1, 3, 5}) {
      const Unit& tower = world.building(team, inner);
      require(!world.building(team, inner + 1).alive() || tower.health == tower.most_health, "an inner tower hit",
              inner);
    }
    const bool closed =
        world.building(team, 1).alive() && world.building(team, 3).alive() && world.building(team, 5).alive();
    const Unit& ancient = world.building(team, 0);
    require(!closed || ancient.health == ancient.most_health, "an ancient hit behind its towers", team);
    int kills = 0, deaths = 0;
    for (int k = 0; k < kTeamHeroes; ++k) {
      kills += world.heroes[Units::index(team * kTeamHeroes + k)].kills;
      deaths += world.heroes[Units::index((1 - team) * kTeamHeroes + k)].deaths;
    }
    require(kills <= deaths, "more kills than deaths", team);
    require(world.over || ancient.alive(), "a game that goes on without an ancient", team);
  }
}

// Games by turns: at random, random ones against the strongest script, scripts, and scripts that err. At random choices
// are drawn among all, legal or not: the world itself refuses what cannot be done.
inline void exercise(long long agents_steps) {
  World world;
  long long done = 0;
  int games = 0, fallen = 0, bought = 0, felled = 0;
  constexpr int kScripts[5][kTeams] = {{0, 0}, {0, 3}, {3, 3}, {2, 3}, {1, 2}};
  for (; done < agents_steps; ++games) {
    Rng reset(7, static_cast<std::uint32_t>(games), 0, Purpose::kReset);
    std::array<std::int32_t, kHeroes> roles;
    for (auto& role : roles) role = reset.below(kTeamHeroes);
    world.reset(600, roles);
    for (std::uint64_t step = 1; !world.over; ++step) {
      Rng rng(7, static_cast<std::uint32_t>(games), step, Purpose::kStep);
      std::array<Choice, kHeroes> choices;
      for (int h = 0; h < kHeroes; ++h) {
        const int script = kScripts[games % 5][h / kTeamHeroes];
        choices[Units::index(h)] = script > 0 && rng.below(8) > 0
                                       ? Script(world, h, script, rng).choose()
                                       : Choice{rng.below(kMoves), rng.below(kActs), rng.below(kTargets)};
      }
      std::array<float, kHeroes> dense{}, end{};
      world.step(choices, dense, end, rng);
      for (const float reward : dense) require(reward > -5 && reward < 5, "a reward", games);
      done += kHeroes;
      check_places(world);
      check_heroes(world);
      check_game(world);
    }
    fallen += !world.building(0, 0).alive() || !world.building(1, 0).alive();
    for (const Hero& hero : world.heroes) {
      bought += hero.spent > 0;
      felled += hero.kills;
    }
  }
  require(games < 5 || (fallen > 0 && bought > 0 && felled > 0), "no game went far", games);
  std::printf("moba: %lld steps of agents in %d games (%d ancients fell, %d heroes killed): all invariants held\n",
              done, games, fallen, felled);
}

}  // namespace dist_trainer::moba
