// The MMO's world: agents, creatures, and what a step does. Agents act one after the other, beginning with one that is
// drawn; then creatures do; then needs take their toll, and who is dead begins a new life in town.
#pragma once

#include "mmo_wilds.h"

namespace dist_trainer::mmo {

struct Choice {
  std::int32_t move, act, good, price;
};

struct World : Wilds {
  void reset(int number_of_agents, Rng& rng) {
    map.build(rng);
    market.clear();
    count = number_of_agents;
    time = 0;
    gold_made = gold_lost = 0;
    goods_made = goods_used = {};
    agents = {};
    creatures = {};
    ended = {};
    occupant.fill(kNobody);
    beings.fill(0);
    for (int cell = 0; cell < kCells; ++cell) show_ground(cell);
    for (int i = 0; i < count; ++i) be_born(i, rng);
    for (int i = 0; i < kCreatures; ++i) {
      creatures[at(i)].rest = 1;
      come_back(i, rng);
    }
  }

  // Rewards are added to; `died` says whose life ended.
  void step(std::span<const Choice> choices, std::span<float> rewards, std::span<bool> died, bool duels, Rng& rng) {
    ++time;
    duels_ = duels;
    const int first = rng.below(count);
    for (int n = 0; n < count; ++n) {
      const int i = first + n < count ? first + n : first + n - count;
      if (agents[at(i)].cause < 0) act(i, choices[at(i)], rewards, rng);
    }
    for (int i = 0; i < kCreatures; ++i) live(i, rng);
    for (int n = 0; n < map.node_count; ++n) {
      Node& node = map.nodes[at(n)];
      if (node.regrows > 0 && --node.regrows == 0) show_ground(node.cell);
    }
    for (int i = 0; i < count; ++i) {
      if (agents[at(i)].cause < 0) need(i);
      died[at(i)] = agents[at(i)].cause >= 0;
      ended[at(i)].cause = -1;
      if (!died[at(i)]) continue;
      ended[at(i)] = record_of(i);
      rewards[at(i)] += kDeathReward;
      be_born(i, rng);
    }
  }

 private:
  void act(int i, const Choice& choice, std::span<float> rewards, Rng& rng) {
    Agent& agent = agents[at(i)];
    agent.acted = choice.act;
    if (choice.move != kStay) {
      const int to = agent.cell + kSteps[at(choice.move)];
      const int other = occupant[at(to)];
      if (is_free(to)) {
        leave(agent.cell);
        agent.cell = to;
        put(i + 1, to, kAgentCode);
      } else if (other > kNobody && other < kFirstCreature) {  // they change places: a crowd blocks nobody's way
        agents[at(other - 1)].cell = agent.cell;
        put(other, agent.cell, kAgentCode);
        agent.cell = to;
        put(i + 1, to, kAgentCode);
      }
    }
    switch (choice.act) {
      case kMelee:
      case kRanged:
      case kMagic:
        strike(i, choice.act - kMelee, choice.price + 1 == kDuelPrice, rewards);
        break;
      case kGather:
        gather(i, rewards, rng);
        break;
      case kEat:
        if (use(agent, kRation)) agent.food = std::min(kMostFood, agent.food + kRationFood);
        break;
      case kDrink:
        if (use(agent, kPotion)) agent.health = std::min(most_health(agent), agent.health + kPotionHealth);
        break;
      case kForgeWeapon:
      case kForgeArmour:
      case kForgeTool:
        forge(agent, choice.act - kForgeWeapon);
        break;
      case kSell:
        sell(i, choice.good, choice.price + 1);
        break;
      case kBuy:
        buy(i, choice.good, choice.price + 1);
        break;
      default:
        break;
    }
  }

  bool use(Agent& agent, int good) {
    if (agent.goods[at(good)] == 0) return false;
    --agent.goods[at(good)];
    ++goods_used[at(good)];
    return true;
  }

  void forge(Agent& agent, int what) {
    if (!can_forge(agent, what)) return;
    const int level = agent.equipment[at(what)]++;
    for (const auto& [good, pieces] : {std::pair{kWood, kRecipes[at(what)].wood}, {kOre, kRecipes[at(what)].ore}}) {
      agent.goods[at(good)] -= pieces * (level + 1);
      goods_used[at(good)] += pieces * (level + 1);
    }
  }

  void sell(int i, int good, int price) {
    Agent& agent = agents[at(i)];
    if (agent.goods[at(good)] == 0 || !market.has_room(good, price)) return;
    --agent.goods[at(good)];
    market.offer(good, price, {static_cast<std::int16_t>(i), agent.life});
  }

  // The cheapest, at no more than the price.
  void buy(int i, int good, int most) {
    Agent& agent = agents[at(i)];
    const int price = market.cheapest(good);
    if (price > most || price > agent.gold || agent.goods[at(good)] == kMostGoods) return;
    const Offer offer = market.take(good, price);
    Agent& seller = agents[at(offer.seller)];
    agent.gold -= price;
    ++agent.goods[at(good)];
    if (seller.life == offer.life) {
      seller.gold += price;
      seller.traded += offer.seller != i;
    } else {
      gold_lost += price;
    }
  }

  void strike(int i, int style, bool duel, std::span<float> rewards) {
    Agent& agent = agents[at(i)];
    const int foe = find_foe(i, kStyleRules[at(style)].range, duel);
    if (foe == kNobody) return;
    agent.style = style;
    Skill& skill = agent.styles[at(style)];
    const int damage = kDamage + kLevelDamage * skill.level + kWeaponDamage * agent.equipment[0];
    if (foe < kFirstCreature) {
      Agent& other = agents[at(foe - 1)];
      other.health -= through_armour(weigh(damage, style, other.style), other.equipment[1]);
      if (other.health <= 0) {
        const int spoils = other.gold * kSpoilsPercent / 100;
        other.gold -= spoils;
        agent.gold += spoils;
        die(other, kByAgent);
      }
      return;
    }
    Creature& other = creatures[at(foe - kFirstCreature)];
    other.health = static_cast<std::int16_t>(std::max(0, other.health - weigh(damage, style, other.style)));
    other.angry = kForget;
    learn(agent, skill, kHitExperience * other.level, rewards[at(i)]);
    if (other.health > 0) return;
    learn(agent, skill, kFellExperience * other.level, rewards[at(i)]);
    agent.gold += kCreatureGold * other.level;
    gold_made += kCreatureGold * other.level;
    leave(other.cell);
    other.rest = kAway;
  }

  void gather(int i, std::span<float> rewards, Rng& rng) {
    Agent& agent = agents[at(i)];
    int found = find_node(agent.cell, agent.tool);
    if (found < 0) found = find_node(agent.cell);
    if (found < 0) return;
    Node& node = map.nodes[at(found)];
    if (agent.goods[at(node.good)] == kMostGoods) return;
    Skill& skill = agent.professions[at(node.good)];
    if (rng.below(100) >= gather_percent(agent, node)) {
      learn(agent, skill, kFailExperience, rewards[at(i)]);
      return;
    }
    ++agent.goods[at(node.good)];
    ++goods_made[at(node.good)];
    node.regrows = kRegrow;
    show_ground(node.cell);
    learn(agent, skill, kGatherExperience * node.level, rewards[at(i)]);
  }
};

}  // namespace dist_trainer::mmo
