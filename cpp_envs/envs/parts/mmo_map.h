// The MMO's map of 64 x 64 cells, made from random numbers: lakes, cliffs, meadows, woods and hills, a town in the
// middle, and what can be gathered where. The farther from the town, the higher the levels.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "../../rng.h"
#include "mmo_rules.h"

namespace dist_trainer::mmo {

inline constexpr int kSide = 64, kMargin = 5, kStride = kSide + 2 * kMargin, kCells = kStride * kStride;
inline constexpr int kMiddle = (kSide / 2 + kMargin) * kStride + kSide / 2 + kMargin;
inline constexpr std::array<int, kDirections> kSteps{0, -kStride, 1, kStride, -1};

enum Ground : std::uint8_t { kMeadow, kWoods, kHills, kStreets, kWater, kCliff };

constexpr int column_of(int cell) { return cell % kStride - kMargin; }
constexpr int row_of(int cell) { return cell / kStride - kMargin; }
constexpr int cell_at(int column, int row) { return (row + kMargin) * kStride + column + kMargin; }
inline int distance(int a, int b) {  // a diagonal counts 1
  return std::max(std::abs(column_of(a) - column_of(b)), std::abs(row_of(a) - row_of(b)));
}
inline int danger_of(int cell) {  // 0 in town
  const int far = distance(cell, kMiddle) - kTown;
  return far <= 0 ? 0 : std::min(1 + (far - 1) / kRing, kMostDanger);
}

struct Node {  // something to be gathered
  std::int16_t cell, regrows;
  std::int8_t good, level;
};

enum Goal { kToWater = kGoods, kGoals };  // the ways that are shown: to each good, and to water

struct Map {
  std::array<Ground, kCells> ground;
  std::array<std::int16_t, kCells> node_at;   // -1: none
  std::array<std::uint16_t, kCells> compass;  // three bits for each goal: the direction of the shortest way
  std::array<Node, kMostNodes> nodes;
  std::int32_t node_count;

  bool walkable(int cell) const { return ground[at(cell)] < kWater; }
  int way(int cell, int goal) const { return compass[at(cell)] >> (3 * goal) & 7; }  // kStay: there, or no way
  bool is_shore(int cell) const {
    return std::any_of(kSteps.begin(), kSteps.end(), [&](int step) { return ground[at(cell + step)] == kWater; });
  }
  static constexpr std::size_t at(int cell) { return static_cast<std::size_t>(cell); }

  void build(Rng& rng) {
    for (int attempt = 0; attempt < 20; ++attempt) {
      draw_ground(rng);
      if (close_what_is_cut_off() > kSide * kSide / 2) break;
    }
    place_nodes(rng);
    compass.fill(0);
    for (int goal = 0; goal < kGoals; ++goal) find_ways(goal);
  }

 private:
  // Smooth noise in [0, 1): random values at a grid's corners, between them interpolated.
  class Noise {
   public:
    Noise(int spacing, Rng& rng) : spacing_(spacing) {
      for (float& value : values_) value = rng.uniform();
    }
    float operator()(int x, int y) const {
      const int column = x / spacing_, row = y / spacing_;
      const float right = part(x), down = part(y);
      const auto value = [&](int c, int r) { return values_[static_cast<std::size_t>(r * kGrid + c)]; };
      const float above = value(column, row) * (1 - right) + value(column + 1, row) * right;
      const float below = value(column, row + 1) * (1 - right) + value(column + 1, row + 1) * right;
      return above * (1 - down) + below * down;
    }

   private:
    static constexpr int kGrid = 18;
    float part(int x) const {
      const float t = static_cast<float>(x % spacing_) / static_cast<float>(spacing_);
      return t * t * (3 - 2 * t);
    }
    int spacing_;
    std::array<float, kGrid * kGrid> values_;
  };

  void draw_ground(Rng& rng) {
    const Noise coarse(8, rng), fine(4, rng), wet(8, rng);
    ground.fill(kCliff);
    for (int y = 0; y < kSide; ++y) {
      for (int x = 0; x < kSide; ++x) {
        const int cell = cell_at(x, y);
        const float height = 0.65F * coarse(x, y) + 0.35F * fine(x, y), moisture = wet(x, y);
        ground[at(cell)] = height < 0.31F     ? kWater
                           : height > 0.76F   ? kCliff
                           : height > 0.62F   ? kHills
                           : moisture > 0.52F ? kWoods
                                              : kMeadow;
        if (distance(cell, kMiddle) <= kTown - 2) ground[at(cell)] = kStreets;
      }
    }
    for (const int well : {-2, 2}) ground[at(kMiddle + well)] = kWater;
  }

  int close_what_is_cut_off() {  // returns how many cells can be walked to from the town
    std::array<bool, kCells> reached{};
    std::array<std::int16_t, kCells> queue;
    int count = 0;
    queue[0] = kMiddle;
    reached[at(kMiddle)] = true;
    for (int next = 0, end = 1; next < end; ++next, ++count) {
      for (const int step : kSteps) {
        const int cell = queue[at(next)] + step;
        if (reached[at(cell)] || !walkable(cell)) continue;
        reached[at(cell)] = true;
        queue[at(end++)] = static_cast<std::int16_t>(cell);
      }
    }
    for (int cell = 0; cell < kCells; ++cell) {
      if (walkable(cell) && !reached[at(cell)]) ground[at(cell)] = kCliff;
    }
    return count;
  }

  void place_nodes(Rng& rng) {
    node_at.fill(-1);
    node_count = 0;
    std::array<int, kGoods> counts{};
    const auto place = [&](int cell, int good) {
      if (node_count == kMostNodes || node_at[at(cell)] >= 0) return;
      const int level = std::clamp(danger_of(cell) + rng.below(2), 1, kMostDanger);
      node_at[at(cell)] = static_cast<std::int16_t>(node_count);
      nodes[at(node_count++)] = {static_cast<std::int16_t>(cell), 0, static_cast<std::int8_t>(good),
                                 static_cast<std::int8_t>(level)};
      ++counts[at(good)];
    };
    for (int y = 0; y < kSide; ++y) {
      for (int x = 0; x < kSide; ++x) {
        const int cell = cell_at(x, y);
        const float drawn = rng.uniform();
        if (!walkable(cell) || ground[at(cell)] == kStreets) continue;
        if (is_shore(cell)) {
          if (drawn < 0.25F) place(cell, kRation);
        } else if (ground[at(cell)] == kWoods) {
          if (drawn < 0.09F) place(cell, drawn < 0.06F ? kWood : kPotion);
        } else if (ground[at(cell)] == kHills) {
          if (drawn < 0.12F) place(cell, kOre);
        } else if (drawn < 0.05F) {
          place(cell, kPotion);
        }
      }
    }
    for (int good = 0; good < kGoods; ++good) {  // something of everything, near the town
      for (int attempt = 0; counts[at(good)] < 8 && attempt < 1000; ++attempt) {
        const int cell = cell_at(kSide / 2 - 16 + rng.below(33), kSide / 2 - 16 + rng.below(33));
        if (walkable(cell) && ground[at(cell)] != kStreets) place(cell, good);
      }
    }
  }

  // Breadth first from all goals.
  void find_ways(int goal) {
    std::array<bool, kCells> reached{};
    std::array<std::int16_t, kCells> queue;
    int end = 0;
    for (int cell = 0; cell < kCells; ++cell) {
      if (!walkable(cell)) continue;
      const bool there =
          goal == kToWater ? is_shore(cell) : node_at[at(cell)] >= 0 && nodes[at(node_at[at(cell)])].good == goal;
      if (!there) continue;
      reached[at(cell)] = true;
      queue[at(end++)] = static_cast<std::int16_t>(cell);
    }
    for (int next = 0; next < end; ++next) {
      for (int direction = kNorth; direction < kDirections; ++direction) {
        const int cell = queue[at(next)] - kSteps[at(direction)];  // from which this direction leads here
        if (reached[at(cell)] || !walkable(cell)) continue;
        reached[at(cell)] = true;
        compass[at(cell)] = static_cast<std::uint16_t>(compass[at(cell)] | direction << (3 * goal));
        queue[at(end++)] = static_cast<std::int16_t>(cell);
      }
    }
  }
};

}  // namespace dist_trainer::mmo
