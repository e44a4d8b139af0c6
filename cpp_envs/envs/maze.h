// Maze: find the keys, open the doors, reach the exit, in a maze that was never seen before, of which only the 11 x 11
// squares around the agent are in view. Every maze is a function of its level's number: levels that are not trained on
// show what is learned in general (as in Procgen, Cobbe et al., arXiv 1912.01588).
// Solved: the exit is found in time in >= 90 % of levels outside those trained on.
#pragma once

#include <algorithm>
#include <array>

#include "../picture.h"
#include "../registry.h"
#include "parts/maze_level.h"

namespace dist_trainer {

struct Maze {
  using Observation = std::uint8_t;
  using Action = std::int32_t;  // north, east, south, west

  struct Params {
    int cells = 7;
    int doors = 2;
    float loops = 0.1F;
    int start_level = 0;
    int num_levels = 100'000;
    int max_steps = 400;
    void visit(auto&& field) {
      field("cells", cells, 4, MazeLevel::kMostCells, "of a side; 2 cells + 1 squares, walls included");
      field("doors", doors, 0, MazeLevel::kMostDoors, "between start and exit, each with its key");
      field("loops", loops, 0.0F, 1.0F, "probability that a wall is left out, where that leads around no door");
      field("start_level", start_level, 0, 2'000'000'000, "number of the first level");
      field("num_levels", num_levels, 1, 100'000'000, "levels from there on, one drawn for each episode");
      field("max_steps", max_steps, 1, 1'000'000, "steps until the episode is truncated");
    }
  };

  static constexpr int kReach = MazeLevel::kMargin, kView = 2 * kReach + 1, kPlanes = 5;

  MazeLevel map;
  std::int32_t agent, number, shortest, steps, keys_found, doors_opened;
  std::array<bool, MazeLevel::kMostDoors> found;  // keys
  bool escaped;

  static Spec spec(const Params&) {
    return {.observation_shape = {kPlanes * kView * kView + MazeLevel::kMostDoors},
            .action = ActionSpec::discrete(4),
            .num_agents = 1,
            .metrics = {"success", "spl", "path_ratio", "keys", "doors"},
            .picture = {320, 346}};
  }

  void reset(const Params& params, Rng& rng) {
    number = params.start_level + rng.below(params.num_levels);
    Rng of_level(static_cast<std::uint64_t>(number), 0, 0, Purpose::kReset);
    map.build(params.cells, params.doors, params.loops, of_level);
    shortest = map.count_shortest();
    agent = map.start;
    steps = keys_found = doors_opened = 0;
    found.fill(false);
    escaped = false;
  }

  // 1 for every key, for every door that is opened and for the exit.
  StepResult step(const Params& params, std::int32_t action, Rng&) {
    ++steps;
    float reward = 0;
    const std::int32_t next = agent + MazeLevel::kMoves[action];
    Square& square = map.squares[next];
    if (square != Square::kWall && square != Square::kLocked) {
      agent = next;
      reward = square == Square::kFree ? 0 : 1;
      escaped = square == Square::kExit;
      doors_opened += square == Square::kOpenable;
      if (square == Square::kKey) take_key(map.key_number(next));
      if (!escaped) square = Square::kFree;
    }
    return {.reward = reward, .terminated = escaped, .truncated = !escaped && steps >= params.max_steps};
  }

  // Planes of 11 x 11 squares, north up, 255 where there is a wall, the exit, a key, a locked door, a door whose key is
  // found. Then 255 for each key that is found.
  void observe(const Params&, std::span<std::uint8_t> out) const {
    constexpr int kSize = kView * kView;
    std::array<Square, kSize> view;
    const Square* corner = &map.squares[agent - kReach * (MazeLevel::kStride + 1)];
    for (int row = 0; row < kView; ++row) std::copy_n(corner + row * MazeLevel::kStride, kView, &view[row * kView]);
    for (int plane = 0; plane < kPlanes; ++plane) {
      std::uint8_t* shown = &out[plane * kSize];
      for (int i = 0; i < kSize; ++i) shown[i] = static_cast<int>(view[i]) == plane + 1 ? 255 : 0;
    }
    for (int i = 0; i < MazeLevel::kMostDoors; ++i) out[kPlanes * kSize + i] = found[i] ? 255 : 0;
  }

  // spl: success weighted by path length, shortest / taken (Anderson et al., arXiv 1807.06757). path_ratio: taken /
  // shortest; for who did not escape all steps count as taken.
  void metrics(const Params&, std::span<float> out) const {
    const float ratio = static_cast<float>(steps) / static_cast<float>(shortest);
    const auto share = [this](int count) { return static_cast<float>(count) / static_cast<float>(map.doors); };
    out[0] = escaped;
    out[1] = escaped ? 1 / ratio : 0;
    out[2] = ratio;
    out[3] = map.doors == 0 ? 1 : share(keys_found);
    out[4] = map.doors == 0 ? 1 : share(doors_opened);
  }

  void render(const Params&, Canvas& canvas) const {
    draw_header(canvas, Label("LEVEL ", number), Label("STEP ", steps, "/", shortest));
    const int side = 2 * map.cells + 1;
    const Board board(below_header(canvas, 4), side, side);
    const auto box_of = [&board](int square) {
      return board.cell(square % MazeLevel::kStride - kReach, square / MazeLevel::kStride - kReach);
    };
    canvas.rect(board.box(), palette::kPanel);
    for (int i = 0; i < side * side; ++i) {
      const int square = (i / side + kReach) * MazeLevel::kStride + i % side + kReach;
      if (map.squares[square] == Square::kWall) canvas.rect(box_of(square), palette::kWall);
    }
    const float unit = board.side() / 10;
    canvas.rect(box_of(map.exit).inset(unit), palette::kGoal, 2 * unit);
    for (int i = 0; i < map.doors; ++i) {
      const Color color = std::array{palette::kGold, palette::kOrange, palette::kViolet}[i];
      const Box door = box_of(map.door_at[i]);
      const auto [x, y] = box_of(map.key_at[i]).center();
      if (map.squares[map.door_at[i]] == Square::kFree) {
        canvas.frame(door, unit, color);
        continue;
      }
      canvas.rect(door.inset(unit / 2), color, 2 * unit);
      if (found[i]) continue;
      canvas.disc(door.center(), 1.6F * unit, palette::kBackground);  // a keyhole
      canvas.ring({x - 2 * unit, y}, 2.6F * unit, 1.3F * unit, color);
      canvas.line({x + unit, y}, {x + 4 * unit, y}, 1.3F * unit, color);
      canvas.line({x + 3.6F * unit, y}, {x + 3.6F * unit, y + 2 * unit}, 1.3F * unit, color);
    }
    const Box seen = box_of(agent).inset(-kReach * board.side()), all = board.box();  // what is in view
    const float left = std::max(seen.x, all.x), top = std::max(seen.y, all.y);
    const float right = std::min(seen.x + seen.width, all.x + all.width);
    canvas.frame({left, top, right - left, std::min(seen.y + seen.height, all.y + all.height) - top}, 1,
                 palette::kAgent.faded(130));
    canvas.disc(box_of(agent).center(), 3.8F * unit, palette::kAgent);
  }

 private:
  void take_key(int door) {
    found[door] = true;
    ++keys_found;
    map.squares[map.door_at[door]] = Square::kOpenable;
  }
};

REGISTER_ENV(Maze, "maze");

}  // namespace dist_trainer
