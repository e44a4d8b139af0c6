// What holds in every state of the MMO.
#pragma once

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "envs/parts/mmo_script.h"
#include "envs/parts/mmo_view.h"

namespace dist_trainer::mmo {

inline void require(bool holds, const char* what, long long who) {
  if (!holds) throw std::runtime_error(std::string("mmo: ") + what + " (" + std::to_string(who) + ")");
}

inline std::size_t at(int i) { return World::at(i); }

// Nobody is in two places, nobody shares one, nobody is in water or on a cliff; no creature is in town.
inline void check_places(const World& world) {
  std::array<std::int16_t, kCells> occupant;
  std::array<std::uint8_t, kCells> beings{};
  occupant.fill(0);
  const auto put = [&](int who, int cell, int code) {
    require(cell >= 0 && cell < kCells && column_of(cell) >= 0 && column_of(cell) < kSide && row_of(cell) >= 0 &&
                row_of(cell) < kSide,
            "outside the map", who);
    require(world.map.ground[at(cell)] != kWater && world.map.ground[at(cell)] != kCliff, "in water, or on a cliff",
            who);
    require(occupant[at(cell)] == 0, "two in one place", who);
    occupant[at(cell)] = static_cast<std::int16_t>(who);
    beings[at(cell)] = static_cast<std::uint8_t>(code);
  };
  for (int i = 0; i < world.count; ++i) put(i + 1, world.agents[at(i)].cell, 90);
  for (int i = 0; i < kCreatures; ++i) {
    const Creature& creature = world.creatures[at(i)];
    require(creature.health >= 0 && creature.rest >= 0 && creature.angry >= 0 && creature.angry <= kForget,
            "a creature", i);
    if (creature.health == 0) continue;
    require(creature.health <= creature.most_health() && creature.rest <= kCreatureRest, "a creature's health or rest",
            i);
    require(creature.level >= 1 && creature.level <= kMostDanger && danger_of(creature.cell) > 0,
            "a creature's level or place", i);
    put(World::kFirstCreature + i, creature.cell, 135 + 15 * creature.level);
  }
  require(occupant == world.occupant && beings == world.beings, "the map of who is where", 0);
}

// Gold and goods came into the world where they may, and are somewhere until they leave it.
inline void check_things(const World& world) {
  std::array<long long, kGoods> goods{};
  long long gold = 0;
  for (int i = 0; i < world.count; ++i) {
    const Agent& agent = world.agents[at(i)];
    gold += agent.gold;
    require(agent.gold >= 0, "debts", i);
    for (int good = 0; good < kGoods; ++good) {
      require(agent.goods[at(good)] >= 0 && agent.goods[at(good)] <= kMostGoods, "goods of an agent", i);
      goods[at(good)] += agent.goods[at(good)];
    }
  }
  for (int good = 0; good < kGoods; ++good) {
    for (int price = 1; price <= kPrices; ++price) {
      const auto& queue = world.market.queue(good, price);
      require(queue.count >= 0 && queue.count <= kQueue && queue.first >= 0 && queue.first < kQueue, "a queue", good);
      goods[at(good)] += queue.count;
      for (int n = 0; n < queue.count; ++n) {
        const Offer& offer = queue.offers[at((queue.first + n) % kQueue)];
        require(offer.seller >= 0 && offer.seller < world.count && offer.life <= world.agents[at(offer.seller)].life,
                "an offer of nobody", offer.seller);
      }
    }
    require(goods[at(good)] == world.goods_made[at(good)] - world.goods_used[at(good)], "goods lost or from nowhere",
            good);
  }
  require(gold == world.gold_made - world.gold_lost, "gold lost or from nowhere", gold);
}

inline void check_lives(const World& world) {
  for (int i = 0; i < world.count; ++i) {
    const Agent& agent = world.agents[at(i)];
    int combat = 0, profession = 0;
    const auto check = [i](const Skill& skill) {
      require(skill.level >= 1 && skill.level <= kMostLevel && skill.experience >= 0 &&
                  (skill.experience < kLevelExperience * skill.level || skill.level == kMostLevel),
              "a level", i);
      return skill.level;
    };
    for (const Skill& skill : agent.styles) combat = std::max(combat, check(skill));
    for (const Skill& skill : agent.professions) profession = std::max(profession, check(skill));
    require(agent.cause == -1 && agent.health > 0 && agent.health <= kHealth + kLevelHealth * combat, "health", i);
    require(agent.food >= 0 && agent.food <= kMostFood && agent.water >= 0 && agent.water <= kMostWater, "needs", i);
    for (int what = 0; what < 3; ++what) {
      const int level = agent.equipment[at(what)];
      require(level >= 0 && level <= kMostEquipment && level <= (what == 2 ? profession : combat),
              "equipment above its level", i);
    }
  }
  for (int n = 0; n < world.map.node_count; ++n) {
    const Node& node = world.map.nodes[at(n)];
    require(node.regrows >= 0 && node.regrows <= kRegrow && world.map.node_at[at(node.cell)] == n, "a node", n);
  }
}

// Every agent's own balance over a step, from outside: what it holds changes only as its act, a sale, a kill or its
// death says.
inline void check_acts(const World& before, const World& now, std::span<const Choice> choices,
                       std::span<const bool> died) {
  for (int i = 0; i < now.count; ++i) {
    const Agent &was = before.agents[at(i)], &is = now.agents[at(i)];
    if (died[at(i)]) {
      require(is.life == static_cast<std::uint16_t>(was.life + 1) && is.gold >= kStartGold && is.traded == 0,
              "a new life", i);
      continue;
    }
    const Choice& choice = choices[at(i)];
    int pieces = 0;
    for (int good = 0; good < kGoods; ++good) pieces += std::abs(is.goods[at(good)] - was.goods[at(good)]);
    const bool forges = choice.act >= kForgeWeapon && choice.act <= kForgeTool;
    require(forges || pieces <= 1, "more than one piece in a step", i);
    require(pieces == 0 || (choice.act >= kGather && choice.act != kNoAct), "goods without an act", i);
    if (choice.act == kBuy && pieces == 1) {
      require(was.gold - is.gold <= choice.price + 1, "paid more than offered", i);
    } else if (is.gold < was.gold) {
      require(choice.act == kBuy, "gold spent without buying", i);
    }
    for (int what = 0; what < 3; ++what) {
      const int gained = is.equipment[at(what)] - was.equipment[at(what)];
      require(gained == 0 || (gained == 1 && choice.act == kForgeWeapon + what), "equipment", i);
    }
  }
}

inline void check_views(const World& world) {
  std::vector<std::uint8_t> out(static_cast<std::size_t>(kBytes) + 1);
  const View view(world);
  for (int i = 0; i < world.count; i += 17) {
    out.back() = 0xAA;
    require(view.observe(i, out.data()) == out.data() + kBytes && out.back() == 0xAA, "bytes of an observation", i);
  }
}

// Worlds by turns: all at random; the script; the script that errs; few agents. At random, choices are drawn among all.
inline void exercise(long long agents_steps) {
  const auto world = std::make_unique<World>(), before = std::make_unique<World>();
  long long done = 0, deaths = 0, sold = 0, forged = 0;
  for (int episode = 0; done < agents_steps; ++episode) {
    Rng reset(11, static_cast<std::uint32_t>(episode), 0, Purpose::kReset);
    const int agents = episode % 4 == 3 ? 7 : episode % 4 == 2 ? kMostAgents : 128;
    world->reset(agents, reset);
    check_places(*world);
    for (std::uint64_t step = 1; step <= 400 && done < agents_steps; ++step) {
      Rng rng(11, static_cast<std::uint32_t>(episode), step, Purpose::kStep);
      std::vector<Choice> choices(at(agents));
      for (int i = 0; i < agents; ++i) {
        const bool random = episode % 4 == 0 || (episode % 4 == 2 && rng.below(4) == 0);
        choices[at(i)] = random
                             ? Choice{rng.below(kDirections), rng.below(kActs), rng.below(kGoods), rng.below(kPrices)}
                             : Script(*world, i, rng).choose();
      }
      std::vector<float> rewards(at(agents));
      std::array<bool, kMostAgents> died{};
      *before = *world;
      world->step(choices, rewards, std::span(died).first(at(agents)), episode % 3 != 0, rng);
      done += agents;
      check_places(*world);
      check_things(*world);
      check_lives(*world);
      check_acts(*before, *world, choices, died);
      if (step % 16 == 0) check_views(*world);
      for (const float reward : rewards) require(reward > -3 && reward < 20, "a reward", episode);
      for (int i = 0; i < agents; ++i) {
        deaths += died[at(i)];
        sold += world->agents[at(i)].traded > before->agents[at(i)].traded && !died[at(i)];
        for (int what = 0; what < 3; ++what)
          forged += world->agents[at(i)].equipment[at(what)] > before->agents[at(i)].equipment[at(what)];
      }
    }
  }
  require(agents_steps < 200'000 || (deaths > 0 && sold > 0 && forged > 0), "nothing much happened", done);
  std::printf("mmo: %lld steps of agents (%lld deaths, %lld pieces sold, %lld forged): all invariants held\n", done,
              deaths, sold, forged);
}

}  // namespace dist_trainer::mmo
