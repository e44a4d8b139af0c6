// One game of the MOBA: what a step does. First everybody who can attacks, casts or buys, all as they stand; then all
// who did not, move; then what hit takes effect, so that two can fell each other in one step.
#pragma once

#include "moba_moves.h"

namespace dist_trainer::moba {

struct Choice {
  std::int32_t move, act, target;
};

struct World : Moves {
  std::int32_t winner;  // kNobody: (yet) undecided
  std::int32_t limit;   // of time
  bool over;

  void reset(int most_steps, const std::array<std::int32_t, kHeroes>& roles) {
    clear();
    time = waves = 0;
    limit = most_steps;
    winner = kNobody;
    over = false;
    hit_ = {};
    hits_ = 0;
    for (int team = 0; team < kTeams; ++team) {
      for (int b = 0; b < kTeamBuildings; ++b) {
        const Building& kind = kBuildingKinds[index(post_of(b))];
        const int i = team * kTeamUnits + kFirstBuilding + b;
        unit(i) = {.cell = {},
                   .health = kind.health,
                   .most_health = kind.health,
                   .damage = kind.damage,
                   .range = kind.range,
                   .ready_in = 0,
                   .stunned = 0,
                   .lane = 0};
        enter(i, kPosts[index(b)].seen_by(team));
      }
    }
    for (int h = 0; h < kHeroes; ++h) {
      const Role& role = kRoles[index(roles[index(h)])];
      heroes[index(h)] = {};
      Hero& hero = heroes[index(h)];
      hero.role = roles[index(h)];
      hero.level = 1;
      hero.most_mana = role.mana;
      hero.gold = hero.earned = kStartGold;
      unit(unit_of_hero(h)) = {.cell = {},
                               .health = 0,
                               .most_health = role.health,
                               .damage = role.damage,
                               .range = role.range,
                               .ready_in = 0,
                               .stunned = 0,
                               .lane = 0};
      appear(h);
    }
  }

  // Adds to `rewards`; to `end` those of the game's end.
  void step(std::span<const Choice, kHeroes> choices, std::span<float, kHeroes> rewards, std::span<float, kHeroes> end,
            Rng& rng) {
    ++time;
    hits_ = 0;
    pass_time();
    const int first = rng.below(kTeams);  // who dashes and moves first, and so takes a cell that both want
    std::array<int, kHeroes> advance;     // steps from the enemy's ancient
    std::array<bool, kHeroes> moves;
    for (int h = 0; h < kHeroes; ++h) advance[index(h)] = advance_of(h);
    for (int k = 0; k < kTeamHeroes; ++k) {
      for (const int team : {first, 1 - first}) {
        const int h = team * kTeamHeroes + k;
        moves[index(h)] = act(h, choices[index(h)]);
      }
    }
    std::array<bool, kTeams * kTeamUnits> marching{};
    for (int team = 0; team < kTeams; ++team) {
      for (int i = team * kTeamUnits + kFirstBuilding; i < end_of(team); ++i) marching[index(i)] = fight(i);
    }
    for (int k = 0; k < kTeamHeroes; ++k) {
      for (const int team : {first, 1 - first}) {
        const int h = team * kTeamHeroes + k;
        if (moves[index(h)]) walk(h, choices[index(h)].move);
      }
    }
    for (int k = kFirstCreep; k < kTeamUnits; ++k) {
      for (const int team : {first, 1 - first}) {
        if (const int i = team * kTeamUnits + k; marching[index(i)]) march(i);
      }
    }
    for (int h = 0; h < kHeroes; ++h) {
      if (advance[index(h)] < kNowhereNear) {
        rewards[index(h)] += kAdvanceReward * static_cast<float>(advance[index(h)] - advance_of(h));
      }
    }
    take_effect(rewards);
    decide(end);
  }

  int standing(int team) const {  // health of all its buildings
    int sum = 0;
    for (int b = 0; b < kTeamBuildings; ++b) sum += building(team, b).health;
    return sum;
  }

 private:
  struct Hit {
    std::int16_t by, at, damage, stun;
  };
  static constexpr int kMostHits = 512;  // at most kHeroes * kTeamUnits + all who attack
  std::array<Hit, kMostHits> hit_;
  std::int32_t hits_;

  void hit(int by, int at, int damage, int stun) {
    hit_[index(hits_++)] = {static_cast<std::int16_t>(by), static_cast<std::int16_t>(at),
                            static_cast<std::int16_t>(damage), static_cast<std::int16_t>(stun)};
  }

  // Whether the hero may still move in this step: it has done nothing else.
  bool act(int h, const Choice& choice) {
    const int i = unit_of_hero(h);
    const Unit& body = unit(i);
    if (!body.alive() || body.stunned > 0) return false;
    bool done = false;
    switch (choice.act) {
      case kAttack:
        done = attack(h, static_cast<Target>(choice.target));
        break;
      case kSkill0:
      case kSkill1:
      case kSkill2:
        done = cast(h, choice.act - kSkill0, static_cast<Target>(choice.target));
        break;
      case kDrink:
        done = drink(h);
        break;
      case kBuy:
        done = buy(h, choice.target);
        break;
      default:
        break;
    }
    if (done) heroes[index(h)].shown_act = choice.act;
    return !done;
  }

  bool attack(int h, Target target) {
    const int i = unit_of_hero(h);
    Unit& body = unit(i);
    if (body.ready_in > 0) return false;
    const int at = find(team_of(i), body.cell, body.range, target, true);
    if (at == kNobody) return false;
    body.ready_in = kAttackEvery;
    heroes[index(h)].shown_at = unit(at).cell;
    hit(i, at, body.damage, 0);
    return true;
  }

  bool cast(int h, int number, Target target) {
    if (!can_cast(h, number)) return false;
    const int i = unit_of_hero(h), team = team_of(i);
    const Cell from = unit(i).cell;
    Hero& hero = heroes[index(h)];
    const Skill& skill = kRoles[index(hero.role)].skills[index(number)];
    Cell middle = from;
    int at = kNobody;
    if (skill.aim == Aim::kEnemy) {
      at = find(team, from, skill.range, target, false);
      if (at == kNobody) return false;
      middle = unit(at).cell;
    } else if (skill.aim == Aim::kAround && find(team, from, skill.radius, kNearest, false) == kNobody) {
      return false;
    }
    const int power = 100 + kSkillGrowth * (hero.level - 1) + kCrystalPower * hero.items[kCrystal];
    hero.mana -= skill.mana;
    hero.cooldown[index(number)] = skill.cooldown;
    hero.shown_at = middle;
    if (skill.damage + skill.stun > 0) {
      const int first = (1 - team) * kTeamUnits, end = end_of(1 - team);
      for (int other = first; other < end; ++other) {
        const bool reached = other == at || distance(unit(other).cell, middle) <= skill.radius;
        if (unit(other).alive() && !is_building(other) && reached &&
            (at == kNobody || skill.radius > 0 || other == at)) {
          hit(i, other, skill.damage * power / 100, skill.stun);
        }
      }
    }
    for (int k = 0; k < kTeamHeroes; ++k) {
      const int other = team * kTeamUnits + k;
      const bool reached = skill.aim == Aim::kAllies ? distance(unit(other).cell, from) <= skill.radius : other == i;
      if (skill.heal + skill.shield == 0 || !unit(other).alive() || !reached) continue;
      Unit& body = unit(other);
      body.health = std::min(body.most_health, body.health + skill.heal * power / 100);
      if (skill.shield > 0) {
        hero_of(other).shield = std::max(hero_of(other).shield, skill.shield * power / 100);
        hero_of(other).shield_left = kShieldTime;
      }
    }
    for (int n = 0; n < skill.dash; ++n) {
      if (skill.aim == Aim::kSelf) {
        descend(i, map().home());
      } else if (distance(unit(i).cell, middle) > 1) {
        approach(i, middle);
      }
    }
    return true;
  }

  // Towers and creeps. Whether a creep goes on instead.
  bool fight(int i) {
    Unit& body = unit(i);
    if (!body.alive() || body.stunned > 0 || body.damage == 0) return false;
    const int at = find(team_of(i), body.cell, body.range, kNearest, true);
    if (at == kNobody) return is_creep(i);
    if (body.ready_in > 0) return false;
    body.ready_in = is_creep(i) ? kCreepAttackEvery : kTowerAttackEvery;
    hit(i, at, body.damage, 0);
    return false;
  }

  void take_effect(std::span<float, kHeroes> rewards) {
    std::array<std::int16_t, kTeams * kTeamUnits> felled_by;
    felled_by.fill(kNobody);
    std::array<std::int16_t, kTeams * kTeamUnits> felled;
    int count = 0;
    for (int n = 0; n < hits_; ++n) {
      const Hit& each = hit_[index(n)];
      Unit& body = unit(each.at);
      if (!body.alive()) continue;
      int damage = each.damage;
      if (is_hero(each.at)) {
        Hero& hero = hero_of(each.at);
        const int kept = std::min(damage, hero.shield);
        hero.shield -= kept;
        damage -= kept;
        hero.hit_for += damage;
      }
      damage = std::min(damage, body.health);
      body.health -= damage;
      body.stunned = std::max(body.stunned, static_cast<std::int32_t>(each.stun));
      if (is_building(each.at)) reward_siege(each.at, damage, rewards);
      if (body.health > 0) continue;
      felled_by[index(each.at)] = each.by;
      felled[index(count++)] = each.at;
    }
    for (int n = 0; n < count; ++n) fell(felled[index(n)], felled_by[index(felled[index(n)])], rewards);
    // Creeps from the last on, so that numbers of those before stay.
    for (int team = 0; team < kTeams; ++team) {
      for (int i = end_of(team) - 1; i >= team * kTeamUnits + kFirstCreep; --i) {
        if (!unit(i).alive()) remove_creep(i);
      }
    }
  }

  void reward_siege(int i, int damage, std::span<float, kHeroes> rewards) const {
    const float worth = place_of(i) == kFirstBuilding ? kAncientReward : kTowerReward;
    const float share = worth * static_cast<float>(damage) / static_cast<float>(unit(i).most_health);
    for (int h = 0; h < kHeroes; ++h) rewards[index(h)] += h / kTeamHeroes == team_of(i) ? -share : share;
  }

  void fell(int i, int by, std::span<float, kHeroes> rewards) {
    const int other_team = 1 - team_of(i);
    const bool by_hero = by != kNobody && is_hero(by);
    int experience = 0;
    if (is_creep(i)) {
      experience = kCreepExperience;
      if (by_hero) {
        earn(hero_of(by), kLastHitGold);
        ++hero_of(by).last_hits;
        rewards[index(hero_of_unit(by))] += kLastHitReward;
      }
    } else if (is_building(i)) {
      leave(i);
      if (place_of(i) == kFirstBuilding) return;
      for (int k = 0; k < kTeamHeroes; ++k) earn(heroes[index(other_team * kTeamHeroes + k)], kTowerGold);
    } else {
      Hero& hero = hero_of(i);
      experience = kHeroExperience + kHeroLevelExperience * hero.level;
      leave(i);
      ++hero.deaths;
      hero.respawn = kRespawn + kRespawnGrowth * hero.level + time / kRespawnLater;
      hero.shield = hero.shield_left = 0;
      rewards[index(hero_of_unit(i))] += kDeathReward;
      if (by_hero) {
        earn(hero_of(by), kKillGold + kKillLevelGold * hero.level);
        ++hero_of(by).kills;
        rewards[index(hero_of_unit(by))] += kKillReward;
      }
    }
    share_experience(other_team, unit(i).cell, experience, rewards);
  }

  // The ancients, or at the end of time who has more health of buildings left.
  void decide(std::span<float, kHeroes> rewards) {
    const bool fallen[kTeams] = {!building(0, 0).alive(), !building(1, 0).alive()};
    over = fallen[0] || fallen[1] || time >= limit;
    if (!over) return;
    if (fallen[0] != fallen[1]) {
      winner = fallen[0] ? 1 : 0;
    } else if (standing(0) != standing(1)) {
      winner = standing(0) > standing(1) ? 0 : 1;
    }
    if (winner == kNobody) return;
    const float reward = fallen[1 - winner] ? kWinReward : kWinReward / 2;
    for (int h = 0; h < kHeroes; ++h) rewards[index(h)] += h / kTeamHeroes == winner ? reward : -reward;
  }
};

}  // namespace dist_trainer::moba
