// The MOBA's map: 40 x 40 cells, the same after half a turn. Team 0 lives in the south-west, team 1 in the north-east;
// lanes run along the west and north side, the diagonal, and the south and east side. Each team sees the map so that it
// is the one in the south-west: its own coordinates.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>

#include "moba_rules.h"

namespace dist_trainer::moba {

inline constexpr int kSide = 40, kMargin = 5, kStride = kSide + 2 * kMargin, kCells = kStride * kStride;

struct Cell {
  std::int32_t x, y;
  constexpr bool operator==(const Cell&) const = default;
  constexpr std::size_t at() const { return static_cast<std::size_t>((y + kMargin) * kStride + x + kMargin); }
  constexpr Cell turned() const { return {kSide - 1 - x, kSide - 1 - y}; }
  constexpr Cell seen_by(int team) const { return team == 0 ? *this : turned(); }  // and back
};
inline constexpr int distance(Cell a, Cell b) { return std::max(std::abs(a.x - b.x), std::abs(a.y - b.y)); }

inline constexpr std::array<Cell, kMoves> kSteps{
    {{0, 0}, {0, -1}, {1, -1}, {1, 0}, {1, 1}, {0, 1}, {-1, 1}, {-1, 0}, {-1, -1}}};
inline constexpr Cell operator+(Cell a, Cell b) { return {a.x + b.x, a.y + b.y}; }

// Of a team, in its own coordinates: the ancient, then of each lane the inner and the outer tower.
inline constexpr int kTeamBuildings = 1 + 2 * kLanes;
inline constexpr std::array<Cell, kTeamBuildings> kPosts{
    {{4, 35}, {4, 27}, {4, 15}, {11, 28}, {16, 23}, {12, 35}, {24, 35}}};
constexpr Post post_of(int building) { return building == 0 ? kAncient : building % 2 == 1 ? kInner : kOuter; }
inline constexpr Cell kFountain{2, 37};
inline constexpr std::array<Cell, kLanes> kMusters{{{4, 31}, {8, 31}, {8, 35}}};  // where creeps appear

class Map {
 public:
  using Field = std::array<std::uint16_t, kCells>;  // steps to somewhere, in own coordinates
  static constexpr std::uint16_t kFar = 0xFFFF;

  Map() {
    for (int y = 0; y < kSide; ++y) {
      for (int x = 0; x < kSide; ++x) open_[Cell{x, y}.at()] = is_open({x, y});
    }
    for (int lane = 0; lane < kLanes; ++lane) fill(lane_[static_cast<std::size_t>(lane)], kPosts[0].turned(), lane);
    fill(home_, kFountain, -1);
    fill(advance_, kPosts[0].turned(), -1);
  }
  bool open(Cell cell) const { return open_[cell.at()]; }
  const Field& lane(int lane) const { return lane_[static_cast<std::size_t>(lane)]; }  // to the enemy's ancient
  const Field& home() const { return home_; }
  const Field& advance() const { return advance_; }  // to the enemy's ancient by the shortest way

  static bool in_lane(Cell c, int lane) {
    if (std::max(std::abs(c.x - 4), std::abs(c.y - 35)) <= 4 || std::max(std::abs(c.x - 35), std::abs(c.y - 4)) <= 4) {
      return true;
    }
    if (lane == 0) return (std::abs(c.x - 4) <= 1 && c.y >= 3) || (std::abs(c.y - 4) <= 1 && c.x >= 3);
    if (lane == 2) return (std::abs(c.y - 35) <= 1 && c.x <= 36) || (std::abs(c.x - 35) <= 1 && c.y <= 36);
    return std::abs(c.x + c.y - (kSide - 1)) <= 2;
  }
  static bool in_river(Cell c) { return std::abs(c.x - c.y) <= 1; }

 private:
  static bool is_open(Cell c) {
    const bool base = distance(c, {4, 35}) <= 4 || distance(c, {35, 4}) <= 4;
    const auto on_path = [](int a) { return a == 13 || a == 26; };  // through the woods
    const bool lane = in_lane(c, 0) || in_lane(c, 1) || in_lane(c, 2);
    const bool inside = c.x >= 3 && c.x <= 36 && c.y >= 3 && c.y <= 36;
    return base || lane || (inside && (in_river(c) || on_path(c.x) || on_path(c.y)));
  }

  // Dijkstra's distances. Cells beside the lane count four; -1: all count one. Buildings are in nobody's way:
  // they may fall, and who walks passes by them.
  void fill(Field& field, Cell goal, int lane) const {
    field.fill(kFar);
    field[goal.at()] = 0;
    for (bool changed = true; changed;) {  // Bellman and Ford: a few sweeps, once per process
      changed = false;
      for (int y = 0; y < kSide; ++y) {
        for (int x = 0; x < kSide; ++x) {
          const Cell here{x, y};
          if (here == goal || !open(here)) continue;
          const int cost = lane < 0 || in_lane(here, lane) ? 1 : 4;
          for (const Cell& step : kSteps) {
            const int there = field[(here + step).at()];
            if (there != kFar && there + cost < field[here.at()]) {
              field[here.at()] = static_cast<std::uint16_t>(there + cost);
              changed = true;
            }
          }
        }
      }
    }
  }
  std::array<bool, kCells> open_{};
  std::array<Field, kLanes> lane_;
  Field home_, advance_;
};

// Made when it is first asked for.
inline const Map& map() {
  static const Map made;
  return made;
}

}  // namespace dist_trainer::moba
