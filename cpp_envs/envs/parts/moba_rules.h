// Every number of the MOBA's rules. cpp_envs/MOBA.md shows them as tables; tests/test_moba.py compares the two.
// Lengths are cells, a diagonal counting 1; times are steps.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace dist_trainer::moba {

inline constexpr int kTeams = 2, kTeamHeroes = 5, kHeroes = kTeams * kTeamHeroes, kLanes = 3;
inline constexpr int kMoves = 9;  // none, then north and on clockwise
enum Act { kNoAct, kAttack, kSkill0, kSkill1, kSkill2, kDrink, kBuy, kActs };
enum Target { kNearest, kWeakestHero, kWeakestCreep, kBuilding, kTargets };  // of kBuy: the item

enum class Aim : std::int32_t { kEnemy, kAround, kAllies, kSelf };  // a target; enemies around; allies around and self

struct Skill {
  const char* name;
  Aim aim;
  int range, radius;               // of the target; of the effect around it, or around oneself
  int damage, heal, shield, stun;  // shields last kShieldTime
  int dash;                        // cells towards the target; with Aim::kSelf towards home
  int mana, cooldown;
};

struct Role {
  const char* name;
  int health, health_growth, mana, mana_growth, damage, damage_growth, range;  // growth for each level
  std::array<Skill, 3> skills;
};

inline constexpr std::array<Role, kTeamHeroes> kRoles{{
    {"guardian",
     260,
     36,
     70,
     8,
     14,
     2,
     1,
     {{{"slam", Aim::kAround, 0, 1, 25, 0, 0, 2, 0, 20, 12},
       {"bulwark", Aim::kSelf, 0, 0, 0, 0, 70, 0, 0, 20, 18},
       {"charge", Aim::kEnemy, 5, 0, 15, 0, 0, 1, 4, 15, 14}}}},
    {"ranger",
     170,
     20,
     70,
     8,
     16,
     3,
     4,
     {{{"pierce", Aim::kEnemy, 6, 0, 40, 0, 0, 0, 0, 15, 8},
       {"volley", Aim::kEnemy, 5, 1, 22, 0, 0, 0, 0, 25, 12},
       {"leap", Aim::kSelf, 0, 0, 0, 0, 15, 0, 4, 15, 14}}}},
    {"mage",
     150,
     18,
     120,
     15,
     11,
     2,
     4,
     {{{"fireball", Aim::kEnemy, 5, 2, 28, 0, 0, 0, 0, 25, 8},
       {"frost", Aim::kEnemy, 5, 0, 15, 0, 0, 3, 0, 25, 14},
       {"storm", Aim::kAround, 0, 4, 45, 0, 0, 0, 0, 60, 40}}}},
    {"healer",
     165,
     20,
     120,
     15,
     10,
     2,
     3,
     {{{"mend", Aim::kAllies, 0, 4, 0, 40, 0, 0, 0, 25, 10},
       {"ward", Aim::kAllies, 0, 3, 0, 0, 30, 0, 0, 30, 18},
       {"smite", Aim::kEnemy, 4, 0, 30, 0, 0, 0, 0, 20, 8}}}},
    {"striker",
     190,
     25,
     80,
     9,
     20,
     3,
     1,
     {{{"ambush", Aim::kEnemy, 5, 0, 30, 0, 0, 0, 4, 20, 12},
       {"whirl", Aim::kAround, 0, 1, 30, 0, 0, 0, 0, 20, 8},
       {"finish", Aim::kEnemy, 1, 0, 60, 0, 0, 0, 0, 30, 20}}}},
}};
inline constexpr int kShieldTime = 8;
inline constexpr int kSkillGrowth = 10;  // percent of a skill's damage, heal and shield for each level beyond the first

inline constexpr int kMaxLevel = 10;
constexpr int experience_for(int level) { return 60 * level; }  // from this level to the next
inline constexpr int kCreepExperience = 24, kHeroExperience = 60, kHeroLevelExperience = 15;  // shared by who is near
inline constexpr int kExperienceRange = 6;

enum Item { kBlade, kMail, kCrystal, kElixir, kItems };
struct Ware {
  const char* name;
  int price, price_growth;  // for each one that is held
  int most;
};
inline constexpr std::array<Ware, kItems> kWares{
    {{"blade", 100, 60, 3}, {"mail", 100, 60, 3}, {"crystal", 90, 50, 3}, {"elixir", 40, 0, 2}}};
inline constexpr int kBladeDamage = 7, kMailHealth = 70, kCrystalMana = 40, kCrystalPower = 15;  // percent of skills
inline constexpr int kElixirHealth = 120, kElixirMana = 40;

inline constexpr int kStartGold = 60, kGoldEvery = 2;  // one piece every so many steps
inline constexpr int kLastHitGold = 12, kKillGold = 60, kKillLevelGold = 10, kTowerGold = 40;  // the last to each hero

inline constexpr int kAttackEvery = 2, kCreepAttackEvery = 2, kTowerAttackEvery = 2;
inline constexpr int kRegenerateEvery = 4;               // one point of health and mana
inline constexpr int kHomeRange = 3, kHomePercent = 12;  // of health and mana in a step, near the own fountain
inline constexpr int kRespawn = 8, kRespawnGrowth = 3,
                     kRespawnLater = 20;  // steps; more for each level; one more every so many steps

struct Building {
  const char* name;
  int health, damage, range;
};
enum Post { kAncient, kInner, kOuter };
inline constexpr std::array<Building, 3> kBuildingKinds{
    {{"ancient", 700, 0, 0}, {"inner", 380, 24, 5}, {"outer", 300, 22, 5}}};
struct Creep {
  const char* name;
  int health, damage, range;
};
inline constexpr std::array<Creep, 2> kCreepKinds{{{"footman", 60, 6, 1}, {"archer", 42, 8, 3}}};
inline constexpr int kWaveEvery = 24, kFirstWave = 4, kWaveFootmen = 2, kWaveArchers = 1;  // in each lane
inline constexpr int kSight = 4;  // in which creeps see enemies

// Rewards. What a team gains by buildings the other one loses; the rest is each hero's own.
inline constexpr float kWinReward = 5, kTowerReward = 0.6F, kAncientReward = 2;  // the latter two by shares of health
inline constexpr float kKillReward = 0.4F, kDeathReward = -0.4F, kLastHitReward = 0.02F;
inline constexpr float kExperienceReward = 0.0004F;  // for each point
inline constexpr float kAdvanceReward = 0.01F;       // for each cell nearer to the enemy's ancient

}  // namespace dist_trainer::moba
