// Prints the MMO's rules as Markdown, for cpp_envs/MMO.md: see world_rules.py.
#include "envs/parts/mmo_rules.h"

#include <cstdio>

using namespace dist_trainer::mmo;

namespace {

void print_combat() {
  std::puts("### Combat\n\n| style | range | strong against |\n|---|---|---|");
  for (int style = 0; style < kStyles; ++style) {
    for (int other = 0; other < kStyles; ++other) {
      if (!is_strong(style, other)) continue;
      const StyleRule& rule = kStyleRules[static_cast<std::size_t>(style)];
      std::printf("| %s | %d | %s |\n", rule.name, rule.range, kStyleRules[static_cast<std::size_t>(other)].name);
    }
  }
  std::puts("\n| | |\n|---|---|");
  std::printf("| damage of an agent | %d, %d more for each level of the style, %d for each of the weapon |\n", kDamage,
              kLevelDamage, kWeaponDamage);
  std::printf("| of a creature, every %d steps | %d, %d more for each level |\n", kCreatureRest, kCreatureDamage,
              kCreatureLevelDamage);
  std::printf("| strong; weak | %d %%; %d %% of it |\n", kStrongPercent, kWeakPercent);
  std::printf("| armour of level n | damage / (1 + %g n) |\n", kArmourPercent / 100.0);
  std::printf("| health of an agent | %d, %d more for each combat level |\n", kHealth, kLevelHealth);
  std::printf("| of a creature | %d, %d more for each level |\n", kCreatureHealth, kCreatureLevelHealth);
  std::printf("| a creature felled | %d gold for each level; another one comes elsewhere %d steps later |\n",
              kCreatureGold, kAway);
  std::printf("| an agent felled by another | %d %% of its gold to that one; what it carried is lost |\n",
              kSpoilsPercent);
}

void print_levels() {
  std::puts("\n### Levels\n\n| | |\n|---|---|");
  std::printf("| from level n to the next | %d n experience; %d levels |\n", kLevelExperience, kMostLevel);
  std::printf("| a hit; a kill | %d; %d for each level of the other |\n", kHitExperience, kFellExperience);
  std::printf("| gathering; trying to | %d for each level of what is gathered; %d |\n", kGatherExperience,
              kFailExperience);
  std::printf(
      "| it succeeds by | %d %%, %d more or less for each level by which profession and tool are above or below, from "
      "%d to %d |\n",
      kGatherPercent, kGatherLevelPercent, kLeastPercent, kMostPercent);
  std::printf("| with a tool of another profession | as by a tool of level -%d |\n", kByHandLevels);
  std::printf("| it grows again in | %d steps |\n", kRegrow);
  std::printf(
      "| danger, the level of a place | 1 from %d cells around the town's middle on, 1 more every %d, up to %d |\n",
      kTown + 1, kRing, kMostDanger);
  std::printf(
      "| agents can fight each other | where it is %d or more, by an attack with price %d; it brings spoils, no "
      "experience |\n",
      kLawless, kDuelPrice);
  std::printf("| a creature's level | that of its place, or up to %d less |\n", kLowerLevels - 1);
  std::puts("\n### Professions\n\n| profession | gathers |\n|---|---|");
  for (const Profession& each : kProfessions) std::printf("| %s | %s |\n", each.name, each.good);
}

void print_needs() {
  std::puts("\n### Needs\n\n| | |\n|---|---|");
  std::printf("| food and water | %d and %d, 1 less every %d steps |\n", kMostFood, kMostWater, kNeedEvery);
  std::printf("| beside water | %d more in each step |\n", kShoreWater);
  std::printf("| a ration | %d food |\n| a potion | %d health |\n", kRationFood, kPotionHealth);
  std::printf("| without food or water | %d health less in each step |\n", kStarving);
  std::printf("| with more than %d of both | 1 health more every %d steps |\n", kContent, kRegenerateEvery);
  std::printf("| a new life | %d ration, %d gold, a tool by turns |\n", kStartRations, kStartGold);
}

void print_things() {
  std::puts("\n### Equipment\n\nFrom level n to n + 1, up to level 8.\n\n| | wood | ore | needs |\n|---|---|---|---|");
  static_assert(kMostEquipment == 8);
  for (const Recipe& recipe : kRecipes) {
    std::printf("| %s | %d (n + 1) | %d (n + 1) | a %s level above n |\n", recipe.name, recipe.wood, recipe.ore,
                &recipe == &kRecipes.back() ? "profession's" : "combat");
  }
  std::puts("\n### Market\n\n| | |\n|---|---|");
  std::printf("| carried of each good | %d |\n| prices | 1 to %d gold |\n| offers of a good at each price | %d |\n",
              kMostGoods, kPrices, kQueue);
}

void print_rewards() {
  std::puts("\n### Rewards\n\n| for | reward |\n|---|---|");
  std::printf("| a level, or the share of one, of the smaller of combat and profession | %g |\n",
              static_cast<double>(kBalanceReward));
  std::printf("| of each of the two | %g |\n| death | %g |\n", static_cast<double>(kProgressReward),
              static_cast<double>(kDeathReward));
}

}  // namespace

int main() {
  print_combat();
  print_levels();
  print_needs();
  print_things();
  print_rewards();
}
