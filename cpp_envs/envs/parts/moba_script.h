// Scripted heroes of three strengths. They see the whole world, and decide in their own coordinates.
//   1  walks its lane and attacks what is nearest, but sleeps through half of its steps
//   2  goes home to heal, buys, drinks, and casts its skills
//   3  takes last hits, picks the weakest hero, then buildings, and pushes the middle lane with the others
#pragma once

#include "moba_world.h"

namespace dist_trainer::moba {

class Script {
 public:
  Script(const World& world, int hero, int strength, Rng& rng)
      : world_(world),
        h_(hero),
        i_(Units::unit_of_hero(hero)),
        team_(hero / kTeamHeroes),
        strength_(strength),
        rng_(rng),
        hero_(world.heroes[Units::index(hero)]),
        body_(world.unit(i_)) {}

  Choice choose() {
    if (!body_.alive() || (strength_ == 1 && rng_.chance(0.5F))) return {0, kNoAct, 0};
    if (strength_ == 1) {
      if (sees(body_.range, kNearest, true)) return {0, kAttack, kNearest};
      return {down(lane()), kNoAct, 0};
    }
    if (const int item = wanted(); item != kItems) return {0, kBuy, item};
    if (hero_.items[kElixir] > 0 && 100 * body_.health < 45 * body_.most_health) return {0, kDrink, 0};
    const int health = 100 * body_.health / body_.most_health;
    if (world_.is_home(h_) ? health < 90 : health < retreat_below()) {
      if (escapes()) return {0, escape(), 0};
      return {down(map().home()), kNoAct, 0};
    }
    if (const Choice cast = best_cast(); cast.act != kNoAct) return cast;
    if (body_.ready_in == 0) {
      if (const int target = best_target(); target != kTargets) return {0, kAttack, target};
    }
    if (sees(body_.range, kNearest, true)) return {0, kNoAct, 0};  // stands until it can attack again
    return {down(lane()), kNoAct, 0};
  }

 private:
  static constexpr int kTogether = 30;  // from this step on strength 3 pushes the middle lane
  static constexpr std::array<int, kTeamHeroes> kLaneOf{0, 2, 1, 2, 0};

  const Map::Field& lane() const {
    const bool together = strength_ == 3 && world_.time >= kTogether;
    return map().lane(together ? 1 : kLaneOf[Units::index(h_ % kTeamHeroes)]);
  }

  bool sees(int range, Target target, bool buildings) const {
    return world_.find(team_, body_.cell, range, target, buildings) != kNobody;
  }

  int retreat_below() const {
    return strength_ == 3 && !sees(6, kWeakestHero, false) ? 22 : 32;  // percent of health
  }

  // The direction of the least of a field among free cells; what is as near as here only if nothing is nearer.
  int down(const Map::Field& field) const {
    const Cell here = body_.cell.seen_by(team_);
    int least = field[here.at()] + 1, best = 0;
    for (int k = 1; k < kMoves; ++k) {
      const Cell there = here + kSteps[Units::index(k)];
      if (field[there.at()] < least && world_.is_free(there.seen_by(team_))) {
        least = field[there.at()];
        best = k;
      }
    }
    return best;
  }

  int wanted() const {  // an item to buy now; kItems: none
    if (!world_.is_home(h_)) return kItems;
    const bool casts = hero_.role == 2 || hero_.role == 3;
    const std::array<int, kItems> order = casts ? std::array<int, kItems>{kCrystal, kMail, kElixir, kBlade}
                                                : std::array<int, kItems>{kBlade, kMail, kElixir, kCrystal};
    for (const int item : order) {
      if (hero_.items[Units::index(item)] < kWares[Units::index(item)].most) {
        return world_.can_buy(h_, item)                                                     ? item
               : strength_ == 3 && hero_.items[kElixir] == 0 && world_.can_buy(h_, kElixir) ? static_cast<int>(kElixir)
                                                                                            : static_cast<int>(kItems);
      }
    }
    return kItems;
  }

  const Skill& skill(int number) const { return kRoles[Units::index(hero_.role)].skills[Units::index(number)]; }
  int escape() const {
    for (int number = 0; number < 3; ++number) {
      if (skill(number).aim == Aim::kSelf && world_.can_cast(h_, number)) return kSkill0 + number;
    }
    return kNoAct;
  }
  bool escapes() const { return escape() != kNoAct && sees(5, kNearest, false) && !world_.is_home(h_); }

  // Heals and shields who needs it; strikes heroes, or two creeps and more.
  Choice best_cast() const {
    for (int number = 2; number >= 0; --number) {
      const Skill& each = skill(number);
      if (!world_.can_cast(h_, number)) continue;
      switch (each.aim) {
        case Aim::kAllies:
          if (is_ally_hurt(each.radius, each.heal > 0 ? 70 : 60)) return {0, kSkill0 + number, 0};
          break;
        case Aim::kEnemy:
          if (sees(each.range, kWeakestHero, false)) return {0, kSkill0 + number, kWeakestHero};
          if (each.radius > 0 && creeps_within(each.range) > 2) return {0, kSkill0 + number, kNearest};
          break;
        case Aim::kAround:
          if (sees(each.radius, kWeakestHero, false)) return {0, kSkill0 + number, 0};
          if (each.mana < 40 && creeps_within(each.radius) > 1) return {0, kSkill0 + number, 0};
          break;
        case Aim::kSelf:
          break;  // to escape
      }
    }
    return {0, kNoAct, 0};
  }

  bool is_ally_hurt(int radius, int percent) const {
    for (int k = 0; k < kTeamHeroes; ++k) {
      const Unit& other = world_.unit(team_ * kTeamUnits + k);
      if (other.alive() && 100 * other.health < percent * other.most_health &&
          distance(other.cell, body_.cell) <= radius) {
        return true;
      }
    }
    return false;
  }

  int creeps_within(int range) const {
    int count = 0;
    for (int i = (1 - team_) * kTeamUnits + kFirstCreep; i < world_.end_of(1 - team_); ++i) {
      count += distance(world_.unit(i).cell, body_.cell) <= range;
    }
    return count;
  }

  int best_target() const {
    if (strength_ == 3) {
      const int creep = world_.find(team_, body_.cell, body_.range, kWeakestCreep, false);
      if (creep != kNobody && world_.unit(creep).health <= body_.damage) return kWeakestCreep;
      if (sees(body_.range, kWeakestHero, false)) return kWeakestHero;
      if (sees(body_.range, kBuilding, true)) return kBuilding;
    }
    return sees(body_.range, kNearest, true) ? static_cast<int>(kNearest) : static_cast<int>(kTargets);
  }

  const World& world_;
  const int h_, i_, team_, strength_;
  Rng& rng_;
  const Hero& hero_;
  const Unit& body_;
};

}  // namespace dist_trainer::moba
