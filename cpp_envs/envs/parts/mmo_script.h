// A scripted agent of the MMO that plays decently: it lives first, then brings up whichever of combat and profession is
// behind, where it can win, and forges what it can.
#pragma once

#include "mmo_world.h"

namespace dist_trainer::mmo {

class Script {
 public:
  Script(const World& world, int agent, Rng& rng)
      : world_(world), i_(agent), me_(world.agents[World::at(agent)]), rng_(rng) {}

  Choice choose() {
    const int health = 100 * me_.health / world_.most_health(me_);
    if (health < 45 && me_.goods[kPotion] > 0) return {kStay, kDrink, 0, 0};
    if (me_.food < 45 && me_.goods[kRation] > 0) return {kStay, kEat, 0, 0};
    if (me_.food < 45 && can_buy(kRation, 6)) return {kStay, kBuy, kRation, 5};
    for (const int what : {0, 2, 1}) {
      if (world_.can_forge(me_, what)) return {kStay, kForgeWeapon + what, 0, 0};
    }
    if (me_.water < 35) return {way(kToWater), threat(3) ? strike().act : kNoAct, 0, 0};
    const int foe = threat(4);
    if (foe != 0 && (health < 40 || !can_beat(foe))) return {away(foe), health < 40 ? kNoAct : strike().act, 0, 0};
    if (me_.food < 60 && me_.goods[kRation] == 0) return seek(kRation);
    if (health < 45 && world_.find_foe(i_, 3) == World::kNobody) return seek(kPotion);
    if (me_.goods[me_.tool] > 12) return {kStay, kSell, me_.tool, 1 + rng_.below(3)};
    const bool fights = world_.combat(me_) <= world_.profession(me_);
    if (fights) return hunt();
    if (const int good = missing(); good >= 0 && can_buy(good, 4)) return {kStay, kBuy, good, 3};
    return seek(me_.tool);
  }

 private:
  int way(int goal) const { return world_.map.way(me_.cell, goal); }

  bool can_buy(int good, int most) const {
    return world_.market.cheapest(good) <= std::min(most, me_.gold) && me_.goods[World::at(good)] < kMostGoods;
  }
  int missing() const {  // for the next weapon
    const int level = me_.equipment[0];
    if (me_.goods[kOre] < 2 * (level + 1)) return kOre;
    return me_.goods[kWood] < level + 1 ? static_cast<int>(kWood) : -1;
  }

  // Gathers if it can, else goes to where there is some.
  Choice seek(int good) const {
    if (world_.find_node(me_.cell, good) >= 0) return {kStay, kGather, 0, 0};
    const int act = threat(3)                         ? strike().act
                    : world_.find_node(me_.cell) >= 0 ? static_cast<int>(kGather)
                                                      : static_cast<int>(kNoAct);
    const int direction = way(good);
    return {direction == kStay || rng_.below(6) == 0 ? rng_.below(kDirections) : direction, act, 0, 0};
  }

  // Attacks what it can beat; else goes where creatures of its level are.
  Choice hunt() const {
    const int foe = threat(4);
    if (foe != 0) {
      if (const Choice hit = strike(); hit.act != kNoAct) return hit;
      return {towards(cell_of(foe)), kNoAct, 0, 0};
    }
    const int wanted = std::clamp(1 + (world_.combat(me_) + me_.equipment[0]) / 3, 1, kMostDanger);
    const int danger = danger_of(me_.cell);
    const int act = world_.find_node(me_.cell) >= 0 ? kGather : kNoAct;
    if (danger >= wanted && danger <= wanted + 1) {  // roams, a while in each direction
      const int roaming = kNorth + (world_.time / 12 + 3 * i_) % 4;
      return {rng_.below(3) == 0 ? rng_.below(kDirections) : roaming, act, 0, 0};
    }
    const int inwards = towards(kMiddle);
    return {danger > wanted ? inwards : opposite(inwards), act, 0, 0};
  }

  // The style of the best level that reaches, weighed by its advantage.
  Choice strike() const {
    int best = kNoAct, most = 0;
    for (int style = 0; style < kStyles; ++style) {
      const int foe = world_.find_foe(i_, kStyleRules[World::at(style)].range);
      if (foe < World::kFirstCreature) continue;
      const int against = world_.creatures[World::at(foe - World::kFirstCreature)].style;
      const int damage = kDamage + kLevelDamage * me_.styles[World::at(style)].level + kWeaponDamage * me_.equipment[0];
      const int value = damage * (is_strong(style, against)   ? kStrongPercent
                                  : is_strong(against, style) ? kWeakPercent
                                                              : 100) +
                        40 * me_.styles[World::at(style)].level;
      if (value > most) {
        most = value;
        best = kMelee + style;
      }
    }
    return {kStay, best, 0, 0};
  }

  // The nearest creature within a range, as World::find_foe names it; 0: none.
  int threat(int range) const {
    const int foe = world_.find_foe(i_, range);
    return foe >= World::kFirstCreature ? foe : 0;
  }
  const Creature& creature(int foe) const { return world_.creatures[World::at(foe - World::kFirstCreature)]; }
  int cell_of(int foe) const { return creature(foe).cell; }
  bool can_beat(int foe) const {
    const Creature& other = creature(foe);
    const int damage = kDamage + kLevelDamage * world_.combat(me_) + kWeaponDamage * me_.equipment[0];
    const int steps = 1 + other.health / damage;
    const int suffers = (kCreatureDamage + kCreatureLevelDamage * other.level) * (1 + steps / kCreatureRest) * 100 /
                        (100 + kArmourPercent * me_.equipment[1]);
    return 3 * suffers < 2 * me_.health;
  }

  static int opposite(int direction) { return direction == kStay ? kStay : (direction + 1) % 4 + 1; }
  int towards(int cell) const {
    const int right = column_of(cell) - column_of(me_.cell), down = row_of(cell) - row_of(me_.cell);
    const int sideways = right > 0 ? kEast : kWest, along = down > 0 ? kSouth : kNorth;
    const bool wide = rng_.below(std::abs(right) + std::abs(down) + 1) < std::abs(right);
    return rng_.below(8) == 0 ? rng_.below(kDirections) : wide ? sideways : along;
  }
  int away(int foe) const { return opposite(towards(cell_of(foe))); }

  const World& world_;
  const int i_;
  const Agent& me_;
  Rng& rng_;
};

}  // namespace dist_trainer::mmo
