// What a hero of the MOBA sees, as bytes, in its team's own coordinates, and what it may choose.
#pragma once

#include <algorithm>

#include "moba_world.h"

namespace dist_trainer::moba {

inline constexpr int kView = 9, kReach = kView / 2, kSeen = 8;  // the window; how far heroes, creeps, towers are seen
inline constexpr int kShownCreeps = 3;
inline constexpr int kWindowBytes = 2 * kView * kView, kMapBytes = kTeams * (kTeamBuildings + kLanes),
                     kEnemyBytes = 7 * kTeamHeroes, kAllyBytes = 6 * (kTeamHeroes - 1),
                     kNearBytes = 4 * (kShownCreeps + 1), kOwnBytes = 42;
inline constexpr int kBytes = kWindowBytes + kMapBytes + kEnemyBytes + kAllyBytes + kNearBytes + kOwnBytes;

// Cooldowns pass before heroes act.
inline bool can_cast_next(const World& world, int h, int skill) {
  const Hero& hero = world.heroes[Units::index(h)];
  return hero.cooldown[Units::index(skill)] <= 1 &&
         hero.mana >= kRoles[Units::index(hero.role)].skills[Units::index(skill)].mana;
}

// What a hero may choose: {moves, acts, targets}.
inline void write_legal(const World& world, int h, bool* out) {
  const int i = Units::unit_of_hero(h), team = Units::team_of(i);
  const Unit& body = world.unit(i);
  const bool free = body.alive() && body.stunned <= 1;  // that of this step will have passed
  *out++ = true;
  for (int move = 1; move < kMoves; ++move) {
    *out++ = free && world.is_free((body.cell.seen_by(team) + kSteps[Units::index(move)]).seen_by(team));
  }
  *out++ = true;
  *out++ = free && body.ready_in <= 1;
  for (int skill = 0; skill < 3; ++skill) *out++ = free && can_cast_next(world, h, skill);
  *out++ = free && world.heroes[Units::index(h)].items[kElixir] > 0;
  bool buys = false;
  for (int item = 0; item < kItems; ++item) buys |= world.can_buy(h, item);
  *out++ = free && buys && world.is_home(h);
  *out++ = true;
  for (int target = 1; target < kTargets; ++target) *out++ = free;
}

class View {
 public:
  explicit View(const World& world, int team) : world_(world), team_(team) {
    std::uint8_t* next = map_.data();
    for (const int side : {team, 1 - team}) {
      for (int b = 0; b < kTeamBuildings; ++b) {
        *next++ = part(world.building(side, b).health, world.building(side, b).most_health);
      }
    }
    for (const int side : {team, 1 - team}) {  // how far the creeps of each lane have come
      std::array<int, kLanes> left;
      left.fill(kFarthest);
      for (int i = side * kTeamUnits + kFirstCreep; i < world.end_of(side); ++i) {
        const Unit& creep = world.unit(i);
        int& least = left[Units::index(creep.lane)];
        least = std::min<int>(least, map().lane(creep.lane)[creep.cell.seen_by(side).at()]);
      }
      // The enemy's north is one's own south.
      for (int lane = 0; lane < kLanes; ++lane) {
        *next++ = part(kFarthest - left[Units::index(side == team ? lane : kLanes - 1 - lane)], kFarthest);
      }
    }
  }

  void observe(int k, std::uint8_t* out) const {  // of hero k of the team
    const int h = team_ * kTeamHeroes + k, i = Units::unit_of_hero(h);
    const Unit& body = world_.unit(i);
    if (!body.alive()) {
      std::fill_n(out, kBytes, std::uint8_t{0});
      out += kWindowBytes;
      std::copy(map_.begin(), map_.end(), out);
      own(h, body, out + (kBytes - kWindowBytes - kOwnBytes));
      return;
    }
    const Cell here = body.cell.seen_by(team_);
    for (int plane = 0; plane < 2; ++plane) {
      const std::uint8_t* corner =
          world_.view[Units::index(2 * team_ + plane)].data() + (here + Cell{-kReach, -kReach}).at();
      for (int row = 0; row < kView; ++row, out += kView) std::copy_n(corner + row * kStride, kView, out);
    }
    out = std::copy(map_.begin(), map_.end(), out);
    for (int other = 0; other < kTeamHeroes; ++other) out = enemy(here, other, out);
    for (int other = 0; other < kTeamHeroes; ++other) {
      if (other != k) out = ally(here, other, out);
    }
    out = near(here, out);
    own(h, body, out);
  }

 private:
  static constexpr int kFarthest = 80;  // steps along a lane that count
  const World& world_;
  const int team_;
  std::array<std::uint8_t, kMapBytes> map_;

  static std::uint8_t byte(int value) { return static_cast<std::uint8_t>(std::clamp(value, 0, 255)); }
  static std::uint8_t part(int of, int whole) { return byte(255 * of / whole); }

  std::uint8_t* enemy(Cell here, int k, std::uint8_t* out) const {
    const int h = (1 - team_) * kTeamHeroes + k;
    const Unit& other = world_.unit(Units::unit_of_hero(h));
    const Cell there = other.cell.seen_by(team_);
    if (!other.alive() || distance(here, there) > kSeen) return std::fill_n(out, 7, std::uint8_t{0});
    const Hero& hero = world_.heroes[Units::index(h)];
    *out++ = 255;
    *out++ = byte(128 + 15 * (there.x - here.x));
    *out++ = byte(128 + 15 * (there.y - here.y));
    *out++ = part(other.health, 500);
    *out++ = part(hero.level, kMaxLevel);
    *out++ = other.stunned > 1 ? 255 : 0;
    *out++ = byte(50 * (hero.role + 1));
    return out;
  }

  std::uint8_t* ally(Cell here, int k, std::uint8_t* out) const {
    const int h = team_ * kTeamHeroes + k;
    const Unit& other = world_.unit(Units::unit_of_hero(h));
    if (!other.alive()) return std::fill_n(out, 6, std::uint8_t{0});
    const Cell there = other.cell.seen_by(team_);
    *out++ = 255;
    *out++ = byte(128 + 6 * (there.x - here.x));
    *out++ = byte(128 + 6 * (there.y - here.y));
    *out++ = part(other.health, other.most_health);
    *out++ = part(world_.heroes[Units::index(h)].level, kMaxLevel);
    *out++ = byte(50 * (world_.heroes[Units::index(h)].role + 1));
    return out;
  }

  // The nearest enemy creeps, then the nearest building that can be attacked: {there, x, y, health}.
  std::uint8_t* near(Cell here, std::uint8_t* out) const {
    std::array<const Unit*, kShownCreeps> nearest{};
    std::array<int, kShownCreeps> far;
    far.fill(kSeen + 1);
    for (int i = (1 - team_) * kTeamUnits + kFirstCreep; i < world_.end_of(1 - team_); ++i) {
      const int distance_to = distance(here, world_.unit(i).cell.seen_by(team_));
      if (distance_to >= far.back()) continue;
      std::size_t at = kShownCreeps - 1;
      for (; at > 0 && distance_to < far[at - 1]; --at) {
        far[at] = far[at - 1];
        nearest[at] = nearest[at - 1];
      }
      far[at] = distance_to;
      nearest[at] = &world_.unit(i);
    }
    const auto put = [&](const Unit* other, int whole) {
      if (!other) {
        out = std::fill_n(out, 4, std::uint8_t{0});
        return;
      }
      const Cell there = other->cell.seen_by(team_);
      *out++ = 255;
      *out++ = byte(128 + 15 * (there.x - here.x));
      *out++ = byte(128 + 15 * (there.y - here.y));
      *out++ = part(other->health, whole);
    };
    for (const Unit* creep : nearest) put(creep, kCreepKinds[0].health);
    const int building = world_.find(team_, here.seen_by(team_), kSeen, kBuilding, true);
    put(building == kNobody ? nullptr : &world_.unit(building), kBuildingKinds[0].health);
    return out;
  }

  void own(int h, const Unit& body, std::uint8_t* out) const {
    const Hero& hero = world_.heroes[Units::index(h)];
    for (int role = 0; role < kTeamHeroes; ++role) *out++ = hero.role == role ? 255 : 0;
    *out++ = byte(2 * hero.respawn);
    *out++ = part(world_.time, world_.limit);
    *out++ = part(hero.level, kMaxLevel);
    *out++ = part(hero.experience, experience_for(hero.level));
    *out++ = byte(hero.gold / 2);
    for (int item = 0; item < kItems; ++item) *out++ = byte(85 * hero.items[Units::index(item)]);
    for (int item = 0; item < kItems; ++item) *out++ = world_.can_buy(h, item) ? 255 : 0;
    if (!body.alive()) return;  // the rest is 0
    *out++ = part(body.health, body.most_health);
    *out++ = part(body.health, 500);
    *out++ = part(hero.mana, hero.most_mana);
    *out++ = part(hero.mana, 250);
    *out++ = byte(2 * hero.shield);
    *out++ = byte(60 * body.stunned);
    *out++ = byte(4 * body.damage);
    *out++ = body.ready_in <= 1 ? 255 : 0;
    for (int skill = 0; skill < 3; ++skill) *out++ = can_cast_next(world_, h, skill) ? 255 : 0;
    *out++ = world_.is_home(h) ? 255 : 0;
    const Cell here = body.cell.seen_by(team_);
    *out++ = part(here.x, kSide - 1);
    *out++ = part(here.y, kSide - 1);
    for (const Map::Field* field : {&map().advance(), &map().home()}) {  // the way to go
      const Cell step = kSteps[Units::index(downhill(*field, here))];
      *out++ = byte(128 + 127 * step.x);
      *out++ = byte(128 + 127 * step.y);
    }
    for (const Target target : {kNearest, kWeakestHero, kWeakestCreep, kBuilding}) {  // whether there is one in range
      const int at = world_.find(team_, body.cell, body.range, target, true);
      *out++ = at != kNobody ? 255 : 0;
      if (target == kWeakestCreep) *out++ = at != kNobody && world_.unit(at).health <= body.damage ? 255 : 0;
    }
    *out++ = part(map().advance()[here.at()], kFarthest);
  }

  static int downhill(const Map::Field& field, Cell here) {
    int least = field[here.at()], best = 0;
    for (int k = 1; k < kMoves; ++k) {
      const int there = field[(here + kSteps[Units::index(k)]).at()];
      if (there < least) {
        least = there;
        best = k;
      }
    }
    return best;
  }
};

}  // namespace dist_trainer::moba
