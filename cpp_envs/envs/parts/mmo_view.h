// What an agent of the MMO sees, as bytes.
#pragma once

#include <algorithm>

#include "mmo_world.h"

namespace dist_trainer::mmo {

inline constexpr int kView = 9, kReach = kView / 2, kWindow = kView * kView;
inline constexpr int kShownCreatures = 3, kShownAgents = 2;
inline constexpr int kOwnBytes = 60;
inline constexpr int kBytes =
    2 * kWindow + 7 * kShownCreatures + 6 * kShownAgents + 2 * kGoals + 2 * kGoods + kOwnBytes;

// The window's cells but the middle, the nearest first.
inline constexpr std::array<std::uint8_t, kWindow - 1> kNearestFirst = [] {
  std::array<std::uint8_t, kWindow - 1> order{};
  std::size_t next = 0;
  for (int r = 1; r <= kReach; ++r) {
    for (int k = 0; k < kWindow; ++k) {
      const int right = k % kView - kReach, down = k / kView - kReach;
      const int far = std::max(right < 0 ? -right : right, down < 0 ? -down : down);
      if (far == r) order[next++] = static_cast<std::uint8_t>(k);
    }
  }
  return order;
}();

class View {
 public:
  // What all see alike is looked up once.
  explicit View(const World& world) : world_(world) {
    std::uint8_t* next = market_.data();
    for (int good = 0; good < kGoods; ++good) {
      const int price = world.market.cheapest(good);
      *next++ = byte(price > kPrices ? 0 : 30 * price);
      *next++ = byte(2 * world.market.offered(good));
    }
  }

  std::uint8_t* observe(int i, std::uint8_t* out) const {
    const Agent& agent = world_.agents[World::at(i)];
    const int corner = agent.cell - kReach * (kStride + 1);
    const std::uint8_t* window = nullptr;
    for (const auto* plane : {&world_.ground, &world_.beings}) {
      window = out;
      for (int row = 0; row < kView; ++row, out += kView)
        std::copy_n(&(*plane)[World::at(corner + row * kStride)], kView, out);
    }
    out = near(agent, corner, window, out);
    for (int goal = 0; goal < kGoals; ++goal) {  // the way there
      const int way = world_.map.way(agent.cell, goal);
      *out++ = byte(128 + (way == kEast ? 127 : way == kWest ? -127 : 0));
      *out++ = byte(128 + (way == kSouth ? 127 : way == kNorth ? -127 : 0));
    }
    out = std::copy(market_.begin(), market_.end(), out);
    return own(i, agent, out);
  }

 private:
  const World& world_;
  std::array<std::uint8_t, 2 * kGoods> market_;

  static std::uint8_t byte(int value) { return static_cast<std::uint8_t>(std::clamp(value, 0, 255)); }
  static std::uint8_t part(int of, int whole) { return byte(255 * of / whole); }

  std::uint8_t* near(const Agent& agent, int corner, const std::uint8_t* window, std::uint8_t* out) const {
    std::uint8_t* creatures = out;
    std::uint8_t* const agents = out + 7 * kShownCreatures;
    std::uint8_t* const end = agents + 6 * kShownAgents;
    std::fill(out, end, std::uint8_t{0});
    out = agents;
    for (const std::uint8_t k : kNearestFirst) {
      if (window[k] == 0) continue;
      const int other = world_.occupant[World::at(corner + k / kView * kStride + k % kView)];
      if (other >= World::kFirstCreature) {
        if (creatures == agents) continue;
        const Creature& creature = world_.creatures[World::at(other - World::kFirstCreature)];
        *creatures++ = byte(128 + 30 * (k % kView - kReach));
        *creatures++ = byte(128 + 30 * (k / kView - kReach));
        *creatures++ = byte(30 * creature.level);
        *creatures++ = byte(255 * creature.health / creature.most_health());
        for (int style = 0; style < kStyles; ++style) *creatures++ = creature.style == style ? 255 : 0;
      } else if (out != end) {
        const Agent& nearby = world_.agents[World::at(other - 1)];
        *out++ = byte(128 + 30 * (k % kView - kReach));
        *out++ = byte(128 + 30 * (k / kView - kReach));
        *out++ = byte(12 * world_.combat(nearby));
        *out++ = part(nearby.health, world_.most_health(nearby));
        *out++ = byte(85 * (nearby.style + 1));
        *out++ = is_strong(agent.style, nearby.style) ? 255 : 0;
      }
    }
    return end;
  }

  std::uint8_t* own(int i, const Agent& agent, std::uint8_t* out) const {
    const std::uint8_t* const begin = out;
    const int combat = world_.combat(agent), profession = world_.profession(agent), most = world_.most_health(agent);
    *out++ = part(agent.health, most);
    *out++ = byte(agent.health);
    *out++ = part(agent.food, kMostFood);
    *out++ = part(agent.water, kMostWater);
    *out++ = byte(12 * combat);
    *out++ = byte(12 * profession);
    *out++ = byte(128 + 12 * (combat - profession));
    for (const Skill& skill : agent.styles) *out++ = byte(12 * skill.level);
    for (const Skill& skill : agent.professions) *out++ = byte(12 * skill.level);
    for (const int pieces : agent.goods) *out++ = part(pieces, kMostGoods);
    for (const int pieces : agent.goods) *out++ = pieces > 0 ? 255 : 0;
    for (const int level : agent.equipment) *out++ = part(level, kMostEquipment);
    for (int what = 0; what < 3; ++what) *out++ = world_.can_forge(agent, what) ? 255 : 0;
    for (int good = 0; good < kGoods; ++good) *out++ = agent.tool == good ? 255 : 0;
    for (int style = 0; style < kStyles; ++style) *out++ = agent.style == style ? 255 : 0;
    *out++ = byte(agent.gold);
    *out++ = byte(25 * agent.gold);
    *out++ = part(column_of(agent.cell), kSide - 1);
    *out++ = part(row_of(agent.cell), kSide - 1);
    *out++ = byte(30 * danger_of(agent.cell));
    *out++ = world_.map.is_shore(agent.cell) ? 255 : 0;
    for (const int step : {-kStride, 1, kStride, -1}) {  // whether it can go there
      const int to = agent.cell + step;
      *out++ = world_.map.walkable(to) && world_.occupant[World::at(to)] < World::kFirstCreature ? 255 : 0;
    }
    for (int style = 0; style < kStyles; ++style)
      *out++ = world_.find_foe(i, kStyleRules[World::at(style)].range) ? 255 : 0;
    const int node = world_.find_node(agent.cell);
    *out++ = node >= 0 ? byte(255 * world_.gather_percent(agent, world_.map.nodes[World::at(node)]) / 100) : 0;
    *out++ = node >= 0 ? byte(30 * world_.map.nodes[World::at(node)].level) : 0;
    for (int good = 0; good < kGoods; ++good)
      *out++ = node >= 0 && world_.map.nodes[World::at(node)].good == good ? 255 : 0;
    return std::fill_n(out, kOwnBytes - (out - begin), std::uint8_t{0});
  }
};

}  // namespace dist_trainer::mmo
