// The MOBA's picture: the whole map; team 0 is blue, team 1 is red. A hero's letter is that of its role.
#pragma once

#include "../../picture.h"
#include "moba_world.h"

namespace dist_trainer::moba {

inline constexpr PictureSize kPicture{536, 562};
inline Board board_of(int width, int height) { return {below_header(width, height), kSide, kSide}; }
inline constexpr std::array<Color, kTeams> kColors{palette::kAgent, palette::kDanger};

inline void draw_map(Canvas& canvas, const Board& board) {
  constexpr Color kWoods{26, 46, 44}, kGround{52, 62, 74}, kLane{70, 74, 82}, kRiver{38, 70, 104};
  canvas.rect(board.box(), kWoods);
  for (int y = 0; y < kSide; ++y) {
    for (int x = 0; x < kSide; ++x) {
      const Cell cell{x, y};
      if (!map().open(cell)) continue;
      const bool lane = Map::in_lane(cell, 0) || Map::in_lane(cell, 1) || Map::in_lane(cell, 2);
      canvas.rect(board.cell(x, y), Map::in_river(cell) ? kRiver : lane ? kLane : kGround);
    }
  }
}

inline void draw_unit(const World& world, Canvas& canvas, const Board& board, int i) {
  const Unit& unit = world.unit(i);
  const Color color = kColors[Units::index(Units::team_of(i))];
  const Box cell = board.cell(unit.cell.x, unit.cell.y);
  const float side = board.side(), health = static_cast<float>(unit.health) / static_cast<float>(unit.most_health);
  if (Units::is_creep(i)) {
    canvas.disc(cell.center(), 0.3F * side, mix(color, palette::kText, 0.15F));
  } else if (Units::is_building(i)) {
    const bool ancient = Units::place_of(i) == kFirstBuilding;
    const Box box = cell.inset(ancient ? -0.9F * side : -0.2F * side);
    canvas.rect(box, mix(color, palette::kBackground, world.is_protected(i) ? 0.6F : 0.2F), 3);
    canvas.frame(box, 2, palette::kText);
    draw_gauge(canvas, {box.x, box.y - 6, box.width, 4}, health, palette::kGoal);
  } else {
    const Hero& hero = world.heroes[Units::index(Units::hero_of_unit(i))];
    canvas.disc(cell.center(), 0.85F * side, palette::kBackground);
    canvas.disc(cell.center(), 0.75F * side, color);
    if (hero.shield > 0) canvas.ring(cell.center(), side, 2, palette::kGold);
    if (unit.stunned > 0) canvas.ring(cell.center(), side, 2, palette::kViolet);
    const char letter[2] = {static_cast<char>(kRoles[Units::index(hero.role)].name[0] - 'a' + 'A'), 0};
    canvas.text({cell.center().x, cell.center().y - 0.5F * static_cast<float>(Canvas::text_height())}, letter,
                palette::kBackground, Align::kCenter);
    draw_gauge(canvas, {cell.x - 0.5F * side, cell.y - 0.75F * side, 2 * side, 4}, health, palette::kGoal);
  }
}

inline void draw(const World& world, Canvas& canvas) {
  std::array<int, kTeams> kills{}, towers{};
  for (int h = 0; h < kHeroes; ++h) kills[Units::index(h / kTeamHeroes)] += world.heroes[Units::index(h)].kills;
  for (int team = 0; team < kTeams; ++team) {
    for (int b = 1; b < kTeamBuildings; ++b) towers[Units::index(team)] += world.building(team, b).alive();
  }
  draw_header(canvas, Label("KILLS ", kills[0], ":", kills[1], "  TOWERS ", towers[0], ":", towers[1]),
              Label("STEP ", world.time));
  const Board board = board_of(canvas.width(), canvas.height());
  draw_map(canvas, board);
  for (int kind : {1, 2, 0}) {
    for (int i = 0; i < kTeams * kTeamUnits; ++i) {
      if (Units::kind_of(i) == kind && world.unit(i).alive()) draw_unit(world, canvas, board, i);
    }
  }
  for (int h = 0; h < kHeroes; ++h) {
    const Hero& hero = world.heroes[Units::index(h)];
    const Unit& body = world.unit(Units::unit_of_hero(h));
    const Point here = board.cell(body.cell.x, body.cell.y).center();
    if (hero.hit_for > 0) canvas.ring(here, 1.1F * board.side(), 1.5F, palette::kOrange);
    if (!body.alive() || hero.shown_act < kAttack || hero.shown_act > kSkill2) continue;
    const Point there = board.cell(hero.shown_at.x, hero.shown_at.y).center();
    const bool skill = hero.shown_act != kAttack;
    canvas.line(here, there, skill ? 3 : 1.5F, skill ? palette::kGold : palette::kText.faded(150));
    if (skill) canvas.ring(there, 1.5F * board.side(), 2, palette::kGold.faded(180));
  }
}

}  // namespace dist_trainer::moba
