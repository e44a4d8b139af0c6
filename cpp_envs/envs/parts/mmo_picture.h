// The MMO's picture: the whole map. Agents are blue, creatures from yellow to red by level.
#pragma once

#include "../../picture.h"
#include "mmo_world.h"

namespace dist_trainer::mmo {

inline constexpr PictureSize kPicture{592, 618};
inline Board board_of(int width, int height) { return {below_header(width, height), kSide, kSide}; }

inline Box cell_of(const Board& board, int cell) { return board.cell(column_of(cell), row_of(cell)); }

inline void draw(const World& world, Canvas& canvas) {
  constexpr std::array<Color, 6> kGrounds{Color{58, 84, 58},    Color{38, 66, 48},  Color{96, 88, 74},
                                          Color{112, 108, 100}, Color{44, 86, 134}, Color{52, 48, 50}};
  constexpr std::array<Color, kGoods> kNodes{Color{150, 205, 240}, Color{190, 120, 220}, Color{150, 100, 50},
                                             Color{225, 225, 235}};
  float best = 0, sum = 0;
  for (int i = 0; i < world.count; ++i) {
    const Agent& agent = world.agents[World::at(i)];
    const auto level = static_cast<float>(std::min(world.combat(agent), world.profession(agent)));
    sum += level;
    best = std::max(best, level);
  }
  draw_header(canvas,
              Label("LEVEL ", Decimal{static_cast<double>(sum) / world.count}, " BEST ", static_cast<int>(best)),
              Label("STEP ", world.time));
  const Board board = board_of(canvas.width(), canvas.height());
  for (int y = 0; y < kSide; ++y) {
    for (int x = 0; x < kSide; ++x) {
      const int cell = cell_at(x, y);
      canvas.rect(board.cell(x, y), kGrounds[world.map.ground[World::at(cell)]]);
    }
  }
  for (int n = 0; n < world.map.node_count; ++n) {
    const Node& node = world.map.nodes[World::at(n)];
    const Color color = kNodes[World::at(node.good)];
    canvas.rect(cell_of(board, node.cell).inset(0.25F * board.side()), node.regrows > 0 ? color.faded(70) : color);
  }
  for (const Creature& creature : world.creatures) {
    if (!creature.alive()) continue;
    const Point middle = cell_of(board, creature.cell).center();
    const float side = 0.6F * board.side();
    const Color color = mix(palette::kGold, palette::kDanger, static_cast<float>(creature.level) / kMostDanger);
    canvas.polygon(
        {{middle.x, middle.y - side}, {middle.x + side, middle.y + side}, {middle.x - side, middle.y + side}}, color);
  }
  for (int i = 0; i < world.count; ++i) {
    const Agent& agent = world.agents[World::at(i)];
    const Point middle = cell_of(board, agent.cell).center();
    canvas.disc(middle, 0.55F * board.side(), palette::kBackground);
    canvas.disc(middle, 0.45F * board.side(),
                mix(palette::kAgent, palette::kText, static_cast<float>(world.combat(agent)) / 10));
    if (agent.acted >= kMelee && agent.acted <= kMagic && world.find_foe(i, 3) != World::kNobody) {
      canvas.ring(middle, 0.8F * board.side(), 1.5F, palette::kOrange);
    }
  }
}

}  // namespace dist_trainer::mmo
