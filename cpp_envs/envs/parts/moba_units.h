// What is on the MOBA's map: heroes, buildings, creeps; who stands where, and what each team sees there.
#pragma once

#include "../../rng.h"
#include "moba_map.h"

namespace dist_trainer::moba {

inline constexpr int kMostCreeps = 24;  // of a team; a wave for which there is no room does not come
inline constexpr int kFirstBuilding = kTeamHeroes, kFirstCreep = kFirstBuilding + kTeamBuildings;
inline constexpr int kTeamUnits = kFirstCreep + kMostCreeps;
inline constexpr int kNobody = -1;

struct Unit {
  Cell cell;
  std::int32_t health, most_health;  // nobody is there if health is 0
  std::int32_t damage, range;
  std::int32_t ready_in, stunned;  // steps until it attacks again, until it acts again
  std::int32_t lane;               // of creeps
  bool alive() const { return health > 0; }
};

struct Hero {
  std::int32_t role, level, experience;
  std::int32_t mana, most_mana;
  std::int32_t shield, shield_left;
  std::int32_t respawn;  // steps until it is back; 0: it lives
  std::int32_t gold, earned, spent;
  std::array<std::int32_t, 3> cooldown;
  std::array<std::int32_t, kItems> items;
  std::int32_t kills, deaths, last_hits, drunk;
  std::int32_t hit_for;    // health lost in this step, for the picture
  std::int32_t shown_act;  // what it did in this step, at whom: for the picture
  Cell shown_at;
};

// Units of team t are units[t * kTeamUnits + k]: heroes from k = 0, buildings from kFirstBuilding, creeps from
// kFirstCreep, packed.
struct Units {
  std::array<Unit, kTeams * kTeamUnits> units;
  std::array<std::int32_t, kTeams> creeps;
  std::array<std::uint8_t, kCells> occupant;  // unit + 1; kFree; kClosed
  // The cells once more, close together, because they are looked through most; kNowhere of who is not on the map.
  std::array<std::int8_t, kTeams * kTeamUnits> xs, ys;
  // What team t sees, in its own coordinates: what is closed or its own in view[2 t], enemies in view[2 t + 1].
  std::array<std::array<std::uint8_t, kCells>, 2 * kTeams> view;

  static constexpr std::uint8_t kFree = 0, kClosed = 255;
  static constexpr std::int8_t kNowhere = 120;
  static constexpr int kKey = 64;                                        // more than a team's units
  static constexpr std::array<std::uint8_t, 3> kOwnCodes{128, 192, 64};  // hero, building, creep
  static constexpr std::array<std::uint8_t, 3> kEnemyCodes{170, 255, 85};

  static constexpr int team_of(int unit) { return unit / kTeamUnits; }
  static constexpr int place_of(int unit) { return unit % kTeamUnits; }  // among its team's
  static constexpr int kind_of(int unit) {
    return place_of(unit) < kFirstBuilding ? 0 : place_of(unit) < kFirstCreep ? 1 : 2;
  }
  static constexpr bool is_hero(int unit) { return kind_of(unit) == 0; }
  static constexpr bool is_building(int unit) { return kind_of(unit) == 1; }
  static constexpr bool is_creep(int unit) { return kind_of(unit) == 2; }
  static constexpr int unit_of_hero(int hero) { return hero / kTeamHeroes * kTeamUnits + hero % kTeamHeroes; }
  static constexpr int hero_of_unit(int unit) { return team_of(unit) * kTeamHeroes + place_of(unit); }
  int end_of(int team) const { return team * kTeamUnits + kFirstCreep + creeps[index(team)]; }
  static constexpr std::size_t index(int i) { return static_cast<std::size_t>(i); }

  Unit& unit(int i) { return units[index(i)]; }
  const Unit& unit(int i) const { return units[index(i)]; }
  const Unit& building(int team, int b) const { return unit(team * kTeamUnits + kFirstBuilding + b); }
  bool is_free(Cell cell) const { return occupant[cell.at()] == kFree; }

  void clear() {
    units = {};
    creeps = {0, 0};
    xs.fill(kNowhere);
    ys.fill(kNowhere);
    occupant.fill(kClosed);
    for (auto& plane : view) plane.fill(0);
    for (int team = 0; team < kTeams; ++team) view[index(2 * team)].fill(kClosed);
    for (int y = 0; y < kSide; ++y) {
      for (int x = 0; x < kSide; ++x) {
        if (map().open({x, y})) put_back({x, y});
      }
    }
  }

  void enter(int i, Cell cell) {
    unit(i).cell = cell;
    xs[index(i)] = static_cast<std::int8_t>(cell.x);
    ys[index(i)] = static_cast<std::int8_t>(cell.y);
    occupant[cell.at()] = static_cast<std::uint8_t>(i + 1);
    for (int team = 0; team < kTeams; ++team) {
      const bool own = team == team_of(i);
      view[index(2 * team + !own)][cell.seen_by(team).at()] = (own ? kOwnCodes : kEnemyCodes)[index(kind_of(i))];
    }
  }
  void leave(int i) {
    put_back(unit(i).cell);
    xs[index(i)] = ys[index(i)] = kNowhere;
  }
  void move(int i, Cell cell) {
    leave(i);
    enter(i, cell);
  }

  // False if there is no room.
  bool add_creep(int team, int kind, int lane, Cell near) {
    Cell cell;
    if (creeps[index(team)] == kMostCreeps || !free_near(near, 2, team, cell)) return false;
    const Creep& creep = kCreepKinds[index(kind)];
    const int i = end_of(team);
    ++creeps[index(team)];
    unit(i) = {.cell = cell,
               .health = creep.health,
               .most_health = creep.health,
               .damage = creep.damage,
               .range = creep.range,
               .ready_in = 0,
               .stunned = 0,
               .lane = lane};
    enter(i, cell);
    return true;
  }
  // The last one takes its number.
  void remove_creep(int i) {
    leave(i);
    const int last = end_of(team_of(i)) - 1;
    if (last != i) {
      unit(i) = unit(last);
      enter(i, unit(i).cell);
    }
    unit(last) = {};
    xs[index(last)] = ys[index(last)] = kNowhere;
    --creeps[index(team_of(i))];
  }

  // The nearest free cell in a fixed order of the team's own coordinates.
  bool free_near(Cell near, int reach, int team, Cell& found) const {
    const Cell middle = near.seen_by(team);
    for (int r = 0; r <= reach; ++r) {
      for (int y = -r; y <= r; ++y) {
        for (int x = -r; x <= r; ++x) {
          if (std::max(std::abs(x), std::abs(y)) != r) continue;
          found = (middle + Cell{x, y}).seen_by(team);
          if (std::min(found.x, found.y) >= 0 && std::max(found.x, found.y) < kSide && is_free(found)) return true;
        }
      }
    }
    return false;
  }

  // A tower falls after the outer one of its lane, the ancient after an inner one.
  bool is_protected(int i) const {
    const int team = team_of(i), b = place_of(i) - kFirstBuilding;
    switch (post_of(b)) {
      case kOuter:
        return false;
      case kInner:
        return building(team, b + 1).alive();
      default:
        return building(team, 1).alive() && building(team, 3).alive() && building(team, 5).alive();
    }
  }

  // An enemy of `team` at most `range` from a cell: the nearest, or who has the least health; kNobody if there is none.
  int find(int team, Cell from, int range, Target target, bool buildings) const {
    const int first = (1 - team) * kTeamUnits;
    std::array<std::int16_t, kTeamUnits> far;
    for (int k = 0; k < kTeamUnits; ++k) {  // all, so that it is done for many at a time
      const int x = from.x - xs[index(first + k)], y = from.y - ys[index(first + k)];
      far[index(k)] = static_cast<std::int16_t>(std::max(x < 0 ? -x : x, y < 0 ? -y : y));
    }
    for (int k = kFirstBuilding; k < kFirstCreep; ++k) {
      if (far[index(k)] <= range && (!buildings || is_protected(first + k))) far[index(k)] = kNowhere;
    }
    if (target == kNearest) {
      int least = (range + 1) * kKey;  // the lowest number of the nearest
      for (int k = 0; k < kTeamUnits; ++k) least = std::min(least, far[index(k)] * kKey + k);
      return least < (range + 1) * kKey ? first + least % kKey : kNobody;
    }
    constexpr std::array<int, kTargets> kBegin{0, 0, kFirstCreep, kFirstBuilding};
    constexpr std::array<int, kTargets> kEnd{0, kFirstBuilding, kTeamUnits, kFirstCreep};
    int best = kNobody, least = 1 << 30;
    for (int k = kBegin[index(target)]; k < kEnd[index(target)]; ++k) {
      if (far[index(k)] > range || unit(first + k).health >= least) continue;
      least = unit(first + k).health;
      best = first + k;
    }
    return best;
  }

 private:
  void put_back(Cell cell) {
    occupant[cell.at()] = kFree;
    for (int team = 0; team < kTeams; ++team) {
      const std::size_t at = cell.seen_by(team).at();
      view[index(2 * team)][at] = view[index(2 * team + 1)][at] = 0;
    }
  }
};

}  // namespace dist_trainer::moba
