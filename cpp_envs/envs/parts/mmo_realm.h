// The MMO's state: who is there, what they have and are, how they are born, learn, hunger and die.
#pragma once

#include <span>

#include "mmo_map.h"
#include "mmo_market.h"

namespace dist_trainer::mmo {

struct Skill {
  std::int32_t level, experience;
};

struct Agent {
  std::int32_t cell, health, food, water;
  std::array<Skill, kStyles> styles;
  std::array<Skill, kGoods> professions;
  std::array<std::int32_t, kGoods> goods;
  std::array<std::int32_t, 3> equipment;  // levels of weapon, armour, tool
  std::int32_t tool;                      // the profession that it is for
  std::int32_t gold, style;               // the style last fought with
  std::int32_t traded;                    // pieces sold
  std::int32_t cause;                     // of death; -1: it lives
  std::int32_t acted;                     // in this step, for the picture
  std::uint16_t life;
};

struct Creature {
  std::int16_t cell, health, level, style, temper;
  std::int16_t rest;   // steps until it attacks again; while it is away, until it is back
  std::int16_t angry;  // steps for which a defensive one strikes back
  bool alive() const { return health > 0; }
  int most_health() const { return kCreatureHealth + kCreatureLevelHealth * level; }
};

// What a life has come to when it ends, and what it is until then.
struct Record {
  float combat, profession, gold, equipment, traded;
  int cause;
};

struct Realm {
  Map map;
  Market market;
  std::array<Agent, kMostAgents> agents;
  std::array<Creature, kCreatures> creatures;
  std::array<Record, kMostAgents> ended;      // of lives that ended in this step
  std::array<std::int16_t, kCells> occupant;  // agents from 1 on, creatures from kFirstCreature
  // What agents see of the ground and of who is there, a byte for each cell.
  std::array<std::uint8_t, kCells> ground, beings;
  std::int32_t count, time;
  // Gold and goods that came into the world, and that left it.
  std::int64_t gold_made, gold_lost;
  std::array<std::int64_t, kGoods> goods_made, goods_used;

  static constexpr int kNobody = 0, kFirstCreature = kMostAgents + 1;
  static constexpr std::uint8_t kAgentCode = 90;
  static constexpr std::size_t at(int i) { return static_cast<std::size_t>(i); }

  static int best(std::span<const Skill> skills) {
    int level = 0;
    for (const Skill& skill : skills) level = std::max(level, skill.level);
    return level;
  }

  int combat(const Agent& agent) const { return best(agent.styles); }

  int profession(const Agent& agent) const { return best(agent.professions); }

  int most_health(const Agent& agent) const { return kHealth + kLevelHealth * combat(agent); }

  // Levels and what is missing to the next.
  static float progress(std::span<const Skill> skills) {
    float most = 0;
    for (const Skill& s : skills) {
      most = std::max(most, static_cast<float>(s.level) +
                                static_cast<float>(s.experience) / static_cast<float>(kLevelExperience * s.level));
    }
    return most;
  }

  Record record_of(int i) const {
    const Agent& agent = agents[at(i)];
    int equipment = 0;
    for (const int level : agent.equipment) equipment += level;
    return {.combat = static_cast<float>(combat(agent)),
            .profession = static_cast<float>(profession(agent)),
            .gold = static_cast<float>(agent.gold),
            .equipment = static_cast<float>(equipment),
            .traded = static_cast<float>(agent.traded),
            .cause = agent.cause};
  }

  Record record_of_step(int i) const { return ended[at(i)].cause >= 0 ? ended[at(i)] : record_of(i); }

  // The nearest that an agent could fight within a range: a creature; if `duel`, where there is none as near, an agent
  // that it may fight. kNobody: there is none.
  int find_foe(int i, int range, bool duel = false) const {
    const int cell = agents[at(i)].cell;
    int agent = kNobody;
    for (int r = 1; r <= range; ++r) {
      for (int down = -r; down <= r; ++down) {
        const int stride = down == -r || down == r ? 1 : 2 * r;  // the ring at distance r
        for (int right = -r; right <= r; right += stride) {
          const int other = occupant[at(cell + down * kStride + right)];
          if (other >= kFirstCreature) return other;
          if (duel && other != kNobody && agent == kNobody && may_duel(i, other - 1)) agent = other;
        }
      }
      if (agent != kNobody) return agent;
    }
    return agent;
  }

  // Something to be gathered beside a cell, or on it; -1: none. What is of a good, if it matters.
  int find_node(int cell, int good = -1) const {
    constexpr std::array<int, 9> kBeside{0,           -kStride,    1,           kStride,     -1,
                                         1 - kStride, 1 + kStride, kStride - 1, -1 - kStride};
    for (const int step : kBeside) {
      const int node = map.node_at[at(cell + step)];
      if (node >= 0 && map.nodes[at(node)].regrows == 0 && (good < 0 || map.nodes[at(node)].good == good)) return node;
    }
    return -1;
  }

  bool can_forge(const Agent& agent, int what) const {
    const int level = agent.equipment[at(what)];
    const int needed = what == 2 ? profession(agent) : combat(agent);
    return level < kMostEquipment && needed > level && agent.goods[kWood] >= kRecipes[at(what)].wood * (level + 1) &&
           agent.goods[kOre] >= kRecipes[at(what)].ore * (level + 1);
  }

  int gather_percent(const Agent& agent, const Node& node) const {
    const int tool = agent.tool == node.good ? agent.equipment[2] : -kByHandLevels;
    const int ahead = agent.professions[at(node.good)].level + tool - node.level;
    return std::clamp(kGatherPercent + kGatherLevelPercent * ahead, kLeastPercent, kMostPercent);
  }

 protected:
  bool duels_;

  void show_ground(int cell) {
    const int node = map.node_at[at(cell)];
    const Ground under = map.ground[at(cell)];
    if (node >= 0) {
      ground[at(cell)] =
          map.nodes[at(node)].regrows > 0 ? 20 : static_cast<std::uint8_t>(90 + 30 * map.nodes[at(node)].good);
    } else {
      ground[at(cell)] = under == kCliff ? 255 : under == kWater ? 220 : under == kStreets ? 10 : 0;
    }
  }

  void put(int who, int cell, std::uint8_t code) {
    occupant[at(cell)] = static_cast<std::int16_t>(who);
    beings[at(cell)] = code;
  }

  void leave(int cell) {
    occupant[at(cell)] = kNobody;
    beings[at(cell)] = 0;
  }

  bool is_free(int cell) const { return map.walkable(cell) && occupant[at(cell)] == kNobody; }

  static std::uint8_t code_of(const Creature& creature) {
    return static_cast<std::uint8_t>(135 + 15 * creature.level);  // up to 255
  }

  bool may_duel(int i, int other) const {
    return duels_ && danger_of(agents[at(i)].cell) >= kLawless && danger_of(agents[at(other)].cell) >= kLawless;
  }

  void be_born(int i, Rng& rng) {
    Agent& agent = agents[at(i)];
    gold_lost += agent.gold;
    for (int good = 0; good < kGoods; ++good) goods_used[at(good)] += agent.goods[at(good)];
    const auto life = static_cast<std::uint16_t>(agent.life + 1);
    agent = {};
    agent.life = life;
    for (auto& style : agent.styles) style.level = 1;
    for (auto& each : agent.professions) each.level = 1;
    agent.food = kStartFood;
    agent.water = kStartWater;
    agent.goods[kRation] = kStartRations;
    agent.gold = kStartGold;
    goods_made[kRation] += kStartRations;
    gold_made += kStartGold;
    agent.tool = i % kGoods;
    agent.style = i / kGoods % kStyles;
    agent.health = most_health(agent);
    agent.cause = -1;
    // In town, or, if it is crowded, near it.
    int reach = kTown;
    for (int attempt = 0;; ++attempt) {
      if (attempt % 64 == 63 && reach < kSide / 2) ++reach;
      const int cell = kMiddle + (rng.below(2 * reach + 1) - reach) * kStride + rng.below(2 * reach + 1) - reach;
      if (!is_free(cell)) continue;
      agent.cell = cell;
      put(i + 1, cell, kAgentCode);
      return;
    }
  }

  // Adds experience and what it is worth.
  void learn(Agent& agent, Skill& skill, int experience, float& reward) const {
    const float combat_before = progress(agent.styles), profession_before = progress(agent.professions);
    const int health_before = most_health(agent);
    if (skill.level < kMostLevel) skill.experience += experience;
    while (skill.level < kMostLevel && skill.experience >= kLevelExperience * skill.level) {
      skill.experience -= kLevelExperience * skill.level++;
    }
    if (skill.level == kMostLevel) skill.experience = 0;
    agent.health += most_health(agent) - health_before;
    const float combat_now = progress(agent.styles), profession_now = progress(agent.professions);
    reward += kBalanceReward * (std::min(combat_now, profession_now) - std::min(combat_before, profession_before)) +
              kProgressReward * (combat_now - combat_before + profession_now - profession_before);
  }

  static int weigh(int damage, int style, int against) {
    return damage * (is_strong(style, against) ? kStrongPercent : is_strong(against, style) ? kWeakPercent : 100) / 100;
  }

  static int through_armour(int damage, int armour) {
    return std::max(1, damage * 100 / (100 + kArmourPercent * armour));
  }

  void die(Agent& agent, int cause) {
    agent.cause = cause;
    agent.health = 0;
    leave(agent.cell);
  }

  void need(int i) {
    Agent& agent = agents[at(i)];
    if (time % kNeedEvery == 0) {
      agent.food = std::max(0, agent.food - 1);
      agent.water = std::max(0, agent.water - 1);
    }
    if (agent.water < kMostWater && map.is_shore(agent.cell))
      agent.water = std::min(kMostWater, agent.water + kShoreWater);
    if (agent.food == 0 || agent.water == 0) {
      agent.health -= kStarving;
      if (agent.health <= 0) die(agent, agent.food == 0 ? kHunger : kThirst);
    } else if (time % kRegenerateEvery == 0 && std::min(agent.food, agent.water) > kContent) {
      agent.health = std::min(most_health(agent), agent.health + 1);
    }
  }
};

}  // namespace dist_trainer::mmo
