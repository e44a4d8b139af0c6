// The MOBA's heroes: what they are and have, how they come back, what they earn and learn.
#pragma once

#include <span>

#include "moba_units.h"

namespace dist_trainer::moba {

struct Heroes : Units {
  std::array<Hero, kHeroes> heroes;
  std::int32_t time, waves;

  bool is_home(int h) const {
    const int i = unit_of_hero(h);
    return unit(i).alive() && distance(unit(i).cell, kFountain.seen_by(team_of(i))) <= kHomeRange;
  }

  bool can_cast(int h, int skill) const {
    const Hero& hero = heroes[index(h)];
    return hero.cooldown[index(skill)] == 0 && hero.mana >= kRoles[index(hero.role)].skills[index(skill)].mana;
  }

  int price(int h, int item) const {
    const Ware& ware = kWares[index(item)];
    return ware.price + ware.price_growth * heroes[index(h)].items[index(item)];
  }

  bool can_buy(int h, int item) const {
    const Hero& hero = heroes[index(h)];
    return hero.items[index(item)] < kWares[index(item)].most && hero.gold >= price(h, item);
  }

 protected:
  static constexpr int kNowhereNear = 10'000;

  Hero& hero_of(int unit) { return heroes[index(hero_of_unit(unit))]; }

  int advance_of(int h) const {
    const Unit& body = unit(unit_of_hero(h));
    return body.alive() ? map().advance()[body.cell.seen_by(h / kTeamHeroes).at()] : kNowhereNear;
  }

  void appear(int h) {
    Cell cell;
    const int i = unit_of_hero(h), team = team_of(i);
    Hero& hero = heroes[index(h)];
    if (!free_near(kFountain.seen_by(team), kHomeRange, team, cell)) {
      hero.respawn = 1;
      return;
    }
    hero.respawn = 0;
    hero.mana = hero.most_mana;
    unit(i).health = unit(i).most_health;
    unit(i).stunned = unit(i).ready_in = 0;
    enter(i, cell);
  }

  static void tick(std::int32_t& steps) { steps -= steps > 0; }

  void pass_time() {
    for (int i = 0; i < kTeams * kTeamUnits; ++i) {
      tick(unit(i).ready_in);
      tick(unit(i).stunned);
    }
    for (int h = 0; h < kHeroes; ++h) {
      Hero& hero = heroes[index(h)];
      Unit& body = unit(unit_of_hero(h));
      hero.hit_for = hero.shown_act = 0;
      for (auto& left : hero.cooldown) tick(left);
      if (hero.shield_left > 0 && --hero.shield_left == 0) hero.shield = 0;
      if (time % kGoldEvery == 0) earn(hero, 1);
      if (hero.respawn > 0 && --hero.respawn == 0) appear(h);
      if (!body.alive()) continue;
      const int regenerated = time % kRegenerateEvery == 0, percent = is_home(h) ? kHomePercent : 0;
      body.health = std::min(body.most_health, body.health + regenerated + body.most_health * percent / 100);
      hero.mana = std::min(hero.most_mana, hero.mana + regenerated + hero.most_mana * percent / 100);
    }
    if (time % kWaveEvery == kFirstWave) {
      ++waves;
      for (int lane = 0; lane < kLanes; ++lane) {
        for (int n = 0; n < kWaveFootmen + kWaveArchers; ++n) {
          for (int team = 0; team < kTeams; ++team) {
            add_creep(team, n >= kWaveFootmen, lane, kMusters[index(lane)].seen_by(team));
          }
        }
      }
    }
  }

  static void earn(Hero& hero, int gold) {
    hero.gold += gold;
    hero.earned += gold;
  }

  bool drink(int h) {
    Hero& hero = heroes[index(h)];
    Unit& body = unit(unit_of_hero(h));
    if (hero.items[kElixir] == 0) return false;
    --hero.items[kElixir];
    ++hero.drunk;
    body.health = std::min(body.most_health, body.health + kElixirHealth);
    hero.mana = std::min(hero.most_mana, hero.mana + kElixirMana);
    return true;
  }

  bool buy(int h, int item) {
    if (!is_home(h) || !can_buy(h, item)) return false;
    Hero& hero = heroes[index(h)];
    Unit& body = unit(unit_of_hero(h));
    const int paid = price(h, item);
    hero.gold -= paid;
    hero.spent += paid;
    ++hero.items[index(item)];
    if (item == kBlade) body.damage += kBladeDamage;
    if (item == kMail) {
      body.most_health += kMailHealth;
      body.health += kMailHealth;
    }
    if (item == kCrystal) {
      hero.most_mana += kCrystalMana;
      hero.mana += kCrystalMana;
    }
    return true;
  }

  void share_experience(int team, Cell cell, int experience, std::span<float, kHeroes> rewards) {
    std::array<int, kTeamHeroes> near;
    int count = 0;
    for (int k = 0; k < kTeamHeroes; ++k) {
      const Unit& body = unit(team * kTeamUnits + k);
      if (body.alive() && distance(body.cell, cell) <= kExperienceRange) near[index(count++)] = team * kTeamHeroes + k;
    }
    for (int n = 0; n < count; ++n) {
      const int h = near[index(n)];
      rewards[index(h)] += kExperienceReward * static_cast<float>(experience / count);
      learn(h, experience / count);
    }
  }

  void learn(int h, int experience) {
    Hero& hero = heroes[index(h)];
    Unit& body = unit(unit_of_hero(h));
    const Role& role = kRoles[index(hero.role)];
    hero.experience += experience;
    while (hero.level < kMaxLevel && hero.experience >= experience_for(hero.level)) {
      hero.experience -= experience_for(hero.level++);
      body.most_health += role.health_growth;
      body.health += role.health_growth;
      body.damage += role.damage_growth;
      hero.most_mana += role.mana_growth;
      hero.mana += role.mana_growth;
    }
    if (hero.level == kMaxLevel) hero.experience = 0;
  }
};

}  // namespace dist_trainer::moba
