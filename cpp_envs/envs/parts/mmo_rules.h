// Every number of the MMO's rules. cpp_envs/MMO.md shows them as tables. Lengths are cells, times are steps.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace dist_trainer::mmo {

inline constexpr int kMostAgents = 256, kCreatures = 160, kMostNodes = 384;

enum Direction { kStay, kNorth, kEast, kSouth, kWest, kDirections };
enum Act {
  kNoAct,
  kMelee,
  kRanged,
  kMagic,
  kGather,
  kEat,
  kDrink,
  kForgeWeapon,
  kForgeArmour,
  kForgeTool,
  kSell,
  kBuy,
  kActs
};

// What a profession gathers. Fish are eaten, herbs make potions, wood and ore make equipment.
enum Good { kRation, kPotion, kWood, kOre, kGoods };
struct Profession {
  const char* name;
  const char* good;
};
inline constexpr std::array<Profession, kGoods> kProfessions{
    {{"fishing", "ration"}, {"herbalism", "potion"}, {"forestry", "wood"}, {"mining", "ore"}}};

enum Style { kMeleeStyle, kRangedStyle, kMagicStyle, kStyles };
struct StyleRule {
  const char* name;
  int range;
};
inline constexpr std::array<StyleRule, kStyles> kStyleRules{{{"melee", 1}, {"ranged", 3}, {"magic", 3}}};
// Melee is strong against ranged, ranged against magic, magic against melee.
constexpr bool is_strong(int style, int against) { return (style + 1) % kStyles == against; }
inline constexpr int kStrongPercent = 150, kWeakPercent = 70;

// Levels: of each style and each profession. From level n to the next it takes n times so much experience.
inline constexpr int kMostLevel = 20, kLevelExperience = 25;
inline constexpr int kHitExperience = 2, kFellExperience = 15;  // for each level of who is hit, or felled
inline constexpr int kGatherExperience = 10;                    // for each level of what is gathered
inline constexpr int kFailExperience = 1;                       // for trying

inline constexpr int kHealth = 80, kLevelHealth = 6;  // of an agent; more for each combat level
inline constexpr int kDamage = 8, kLevelDamage = 2, kWeaponDamage = 3;
inline constexpr int kArmourPercent = 9;  // of damage, that each level of armour takes away from the rest
inline constexpr int kCreatureHealth = 14, kCreatureLevelHealth = 10, kCreatureDamage = 2, kCreatureLevelDamage = 2;
inline constexpr int kCreatureRest = 3;     // attacks every so many steps
inline constexpr int kRegenerateEvery = 4;  // one point of health, with food and water above kContent
inline constexpr int kContent = 40;

inline constexpr int kMostFood = 100, kMostWater = 100, kNeedEvery = 3;    // both fall by one every so many steps
inline constexpr int kShoreWater = 20;                                     // in each step beside water
inline constexpr int kRationFood = 50, kPotionHealth = 50, kStarving = 2;  // the latter: health in each step without
inline constexpr int kStartFood = 100, kStartWater = 100, kStartRations = 1, kStartGold = 10;

inline constexpr int kMostGoods = 20;     // of each kind, carried
inline constexpr int kMostEquipment = 8;  // level of weapon, armour, tool
// From level n to n + 1: so many, times n + 1. Weapon and armour need a combat level above n, a tool one of a
// profession.
struct Recipe {
  const char* name;
  int wood, ore;
};
inline constexpr std::array<Recipe, 3> kRecipes{{{"weapon", 1, 2}, {"armour", 1, 2}, {"tool", 2, 1}}};

// A gathering succeeds by so many percent, more or less for each level of difference, within the bounds.
inline constexpr int kGatherPercent = 45, kGatherLevelPercent = 12, kLeastPercent = 5, kMostPercent = 95;
inline constexpr int kByHandLevels = 2;  // of which a tool of another profession is worse
inline constexpr int kRegrow = 15;       // steps until something is there again
inline constexpr int kRing = 5;          // cells from the town's edge for each level of danger
inline constexpr int kMostDanger = 8;
inline constexpr int kTown = 6;       // radius: no creature
inline constexpr int kLawless = 3;    // danger from which on agents may fight each other
inline constexpr int kDuelPrice = 8;  // an attack with this price may hit agents; it brings spoils, no experience

inline constexpr int kPrices = 8, kQueue = 12;  // prices are 1 to 8 gold; so many offers of a good at each price
inline constexpr int kCreatureGold = 2;         // for each level
inline constexpr int kSpoilsPercent = 50;       // of the gold of an agent felled by another; the rest is lost

enum Temper { kShy, kDefensive, kAggressive, kTempers };  // flees; strikes back; attacks who comes near
inline constexpr int kSight = 4;                          // of creatures
inline constexpr int kForget = 12;                        // steps after which a defensive one is calm again
inline constexpr int kAway = 12;                          // steps until another one comes for one that was felled
inline constexpr int kLowerLevels = 3;  // a creature's level is the danger of its place, or less by fewer than this

enum Cause { kHunger, kThirst, kByCreature, kByAgent, kCauses };

// Rewards, in levels; they may be fractions of one.
inline constexpr float kBalanceReward = 1;      // of the smaller of combat and profession
inline constexpr float kProgressReward = 0.3F;  // of each of the two
inline constexpr float kDeathReward = -0.5F;

}  // namespace dist_trainer::mmo
