// What the MMO's creatures do.
#pragma once

#include "mmo_realm.h"

namespace dist_trainer::mmo {

struct Wilds : Realm {
 protected:
  // Back somewhere outside the town.
  void come_back(int i, Rng& rng) {
    Creature& creature = creatures[at(i)];
    if (creature.rest > 0 && --creature.rest > 0) return;
    const int cell = cell_at(rng.below(kSide), rng.below(kSide));
    if (!is_free(cell) || danger_of(cell) == 0) {
      creature.rest = 1;  // tries again
      return;
    }
    const int level = std::max(1, danger_of(cell) - rng.below(kLowerLevels));
    creature = {.cell = static_cast<std::int16_t>(cell),
                .health = 0,
                .level = static_cast<std::int16_t>(level),
                .style = static_cast<std::int16_t>(rng.below(kStyles)),
                .temper = static_cast<std::int16_t>(rng.below(10) < 3 + level / 2 ? kAggressive : rng.below(2)),
                .rest = 0,
                .angry = 0};
    creature.health = static_cast<std::int16_t>(creature.most_health());
    put(kFirstCreature + i, cell, code_of(creature));
  }

  void live(int i, Rng& rng) {
    Creature& creature = creatures[at(i)];
    if (!creature.alive()) return come_back(i, rng);
    creature.rest = static_cast<std::int16_t>(creature.rest - (creature.rest > 0));
    creature.angry = static_cast<std::int16_t>(creature.angry - (creature.angry > 0));
    const bool alert = creature.temper == kAggressive || creature.angry > 0;
    const int agent = alert ? find_agent(creature.cell) : -1;
    if (agent < 0) {
      if (rng.below(4) == 0) go(i, kNorth + rng.below(4));
      return;
    }
    const int range = kStyleRules[at(creature.style)].range;
    const int far = distance(creature.cell, agents[at(agent)].cell);
    if (creature.temper == kShy) {
      go(i, towards(agents[at(agent)].cell, creature.cell, creature.cell));
    } else if (far > range) {
      go(i, towards(creature.cell, agents[at(agent)].cell, creature.cell));
    } else if (creature.rest == 0) {
      creature.rest = kCreatureRest;
      Agent& other = agents[at(agent)];
      const int damage = kCreatureDamage + kCreatureLevelDamage * creature.level;
      other.health -= through_armour(weigh(damage, creature.style, other.style), other.equipment[1]);
      if (other.health <= 0) die(other, kByCreature);
    }
  }

  int find_agent(int cell) const {  // the nearest in sight, out of town; -1: none
    for (int r = 1; r <= kSight; ++r) {
      for (int down = -r; down <= r; ++down) {
        const int stride = down == -r || down == r ? 1 : 2 * r;
        for (int right = -r; right <= r; right += stride) {
          const int there = cell + down * kStride + right, other = occupant[at(there)];
          if (other > kNobody && other < kFirstCreature && danger_of(there) > 0) return other - 1;
        }
      }
    }
    return -1;
  }

  // A direction from `from` towards `to` whose next cell, from `here`, is free; kStay if none is.
  int towards(int from, int to, int here) const {
    const int right = column_of(to) - column_of(from), down = row_of(to) - row_of(from);
    const int sideways = right > 0 ? kEast : kWest, along = down > 0 ? kSouth : kNorth;
    const bool wide = std::abs(right) >= std::abs(down);
    const int one = wide ? sideways : along, other = wide ? along : sideways;
    if (is_free(here + kSteps[at(one)])) return one;
    return (wide ? down : right) != 0 && is_free(here + kSteps[at(other)]) ? other : static_cast<int>(kStay);
  }

  void go(int i, int direction) {
    Creature& creature = creatures[at(i)];
    const int to = creature.cell + kSteps[at(direction)];
    if (direction == kStay || !is_free(to) || danger_of(to) == 0) return;
    leave(creature.cell);
    creature.cell = static_cast<std::int16_t>(to);
    put(kFirstCreature + i, to, code_of(creature));
  }
};

}  // namespace dist_trainer::mmo
