// Prints the MOBA's rules as Markdown, for cpp_envs/MOBA.md: see world_rules.py.
#include "envs/parts/moba_rules.h"

#include <cstdio>
#include <string>

using namespace dist_trainer::moba;

namespace {

const char* name_of(Aim aim) {
  switch (aim) {
    case Aim::kEnemy:
      return "target";
    case Aim::kAround:
      return "enemies around";
    case Aim::kAllies:
      return "allies around, oneself";
    default:
      return "oneself";
  }
}

std::string more(int value, int growth) { return std::to_string(value) + " + " + std::to_string(growth); }

void print_roles() {
  std::puts("### Roles\n\nOf the first level + for each further one.\n");
  std::puts("| role | health | mana | damage | range |\n|---|---|---|---|---|");
  for (const Role& role : kRoles) {
    std::printf("| %s | %s | %s | %s | %d |\n", role.name, more(role.health, role.health_growth).c_str(),
                more(role.mana, role.mana_growth).c_str(), more(role.damage, role.damage_growth).c_str(), role.range);
  }
  std::puts("\n### Skills\n\nIn the order of the acts skill 1 to skill 3.\n");
  std::puts("| role | skill | at | range | radius | damage | heals | shield | stuns | dash | mana | cooldown |");
  std::puts("|---|---|---|---|---|---|---|---|---|---|---|---|");
  for (const Role& role : kRoles) {
    for (const Skill& skill : role.skills) {
      std::printf("| %s | %s | %s |", role.name, skill.name, name_of(skill.aim));
      for (const int value : {skill.range, skill.radius, skill.damage, skill.heal, skill.shield, skill.stun, skill.dash,
                              skill.mana, skill.cooldown}) {
        std::printf(value == 0 ? "  |" : " %d |", value);
      }
      std::puts("");
    }
  }
  std::printf(
      "\nDamage, healing and shield grow by %d %% for each level beyond the first, and by %d %% for each crystal. ",
      kSkillGrowth, kCrystalPower);
  std::printf(
      "Shields last %d steps. A dash goes towards the target, or home if it is at oneself. Skills do not touch "
      "buildings.\n\n",
      kShieldTime);
}

void print_things() {
  std::puts("### Buildings and creeps\n\n| | health | damage | range |\n|---|---|---|---|");
  for (const Building& each : kBuildingKinds) {
    std::printf("| %s%s | %d | %d | %d |\n", each.name, each.name[0] == 'a' ? "" : " tower", each.health, each.damage,
                each.range);
  }
  for (const Creep& each : kCreepKinds)
    std::printf("| %s | %d | %d | %d |\n", each.name, each.health, each.damage, each.range);
  std::printf(
      "\nAll attack every %d steps. A wave of %d footmen and %d archer comes down each lane every %d steps, first in "
      "step "
      "%d. Creeps go for what is nearest of what they see within %d cells.\n\n",
      kAttackEvery, kWaveFootmen, kWaveArchers, kWaveEvery, kFirstWave, kSight);
  std::puts(
      "### Items\n\nBought at home.\n\n| item | price | for each one held | at most | does |\n|---|---|---|---|---|");
  const std::string does[kItems] = {
      "damage + " + std::to_string(kBladeDamage), "health + " + std::to_string(kMailHealth),
      "mana + " + std::to_string(kCrystalMana) + ", skills + " + std::to_string(kCrystalPower) + " %",
      "when drunk: health + " + std::to_string(kElixirHealth) + ", mana + " + std::to_string(kElixirMana)};
  for (int item = 0; item < kItems; ++item) {
    const Ware& ware = kWares[static_cast<std::size_t>(item)];
    std::printf("| %s | %d | + %d | %d | %s |\n", ware.name, ware.price, ware.price_growth, ware.most,
                does[item].c_str());
  }
}

void print_numbers() {
  std::puts("\n### Gold, experience, life and death\n\n| | |\n|---|---|");
  std::printf("| gold at the start | %d |\n| gold by itself | 1 every %d steps |\n", kStartGold, kGoldEvery);
  std::printf("| last hit on a creep | %d gold |\n", kLastHitGold);
  std::printf("| last hit on a hero | %d gold + %d for each of its levels |\n", kKillGold, kKillLevelGold);
  std::printf("| a tower falls | %d gold to each of the other team |\n", kTowerGold);
  std::printf("| experience of a creep | %d |\n| of a hero | %d + %d for each of its levels |\n", kCreepExperience,
              kHeroExperience, kHeroLevelExperience);
  std::printf("| who shares it | heroes of the other team within %d cells, in equal parts |\n", kExperienceRange);
  std::printf("| from level n to the next | %d n experience; %d levels |\n", experience_for(1), kMaxLevel);
  std::printf("| regeneration | 1 health and 1 mana every %d steps |\n", kRegenerateEvery);
  std::printf("| within %d cells of the fountain | %d %% of health and mana in every step |\n", kHomeRange,
              kHomePercent);
  std::printf(
      "| a dead hero is back after | %d steps, %d more for each level, 1 more for every %d steps of the game |\n",
      kRespawn, kRespawnGrowth, kRespawnLater);
  std::puts("\n### Rewards\n\n| for | reward |\n|---|---|");
  std::printf("| the ancient of the others, or of one's own | +- %g |\n", static_cast<double>(kWinReward));
  std::printf("| being ahead, or behind, when time is over | +- %g |\n", static_cast<double>(kWinReward / 2));
  std::printf("| damage to a tower, by its share of the health (the whole team; minus for one's own) | %g |\n",
              static_cast<double>(kTowerReward));
  std::printf("| the same of an ancient | %g |\n", static_cast<double>(kAncientReward));
  std::printf("| a hero killed; one's own death | %g; %g |\n", static_cast<double>(kKillReward),
              static_cast<double>(kDeathReward));
  std::printf("| a last hit on a creep | %g |\n| a point of experience | %g |\n", static_cast<double>(kLastHitReward),
              static_cast<double>(kExperienceReward));
  std::printf(
      "| a cell nearer to the enemy's ancient (minus for one farther; nothing for dying and coming back) | %g |\n",
      static_cast<double>(kAdvanceReward));
}

}  // namespace

int main() {
  print_roles();
  print_things();
  print_numbers();
}
