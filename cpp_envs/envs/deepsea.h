// DeepSea: a diver sinks through a square of size x size cells, one row a step, and steers left or right; only who
// always steers right, at a small cost each time, reaches the treasure in the last corner. Which of the two actions is
// "right" is drawn anew for each cell, the same in all environments and episodes. Rules and rewards are those of
// bsuite's deep_sea, deterministic (Osband et al., "Behaviour suite for reinforcement learning", arXiv 1908.03568).
// Solved: the optimal return, 0.99. Whoever acts at random finds the treasure once in 2^size episodes.
#pragma once

#include <algorithm>

#include "../registry.h"

namespace dist_trainer {

struct DeepSea {
  using Observation = float;
  using Action = std::int32_t;

  struct Params {
    int size = 10;
    int mapping = 1;
    void visit(auto&& field) {
      field("size", size, 2, 64, "rows, columns and steps of an episode");
      field("mapping", mapping, 0, 1'000'000,
            "seed of what the actions mean in each cell; 0: action 1 is right in all");
    }
  };

  static constexpr float kMoveCost = 0.01F;  // of steering right all the way down

  int row, column;
  std::uint64_t moves;  // bit i: steered right in row i

  static Spec spec(const Params& params) {
    return {.observation_shape = {params.size * params.size},
            .action = ActionSpec::discrete(2),
            .num_agents = 1,
            .metrics = {},
            .observation_low = 0,
            .observation_high = 1,
            .picture = {320, 240}};
  }

  void reset(const Params&, Rng&) {
    row = column = 0;
    moves = 0;
  }

  StepResult step(const Params& params, std::int32_t action, Rng&) {
    const bool right = action == right_action(params, row, column);
    const bool treasure = right && column == params.size - 1;  // only the last row's diagonal cell is in this column
    column = std::clamp(column + (right ? 1 : -1), 0, params.size - 1);
    moves |= std::uint64_t{right} << row;
    ++row;
    const float cost = right ? kMoveCost / static_cast<float>(params.size) : 0;
    return {.reward = (treasure ? 1.0F : 0.0F) - cost, .terminated = row == params.size};
  }

  // One entry per cell, row by row: 1 where the diver is. All are 0 below the last row.
  void observe(const Params& params, std::span<float> out) const {
    std::ranges::fill(out, 0.0F);
    if (row < params.size) out[static_cast<std::size_t>(row * params.size + column)] = 1;
  }

  // 0 or 1: a bit of a hash of the cell (the finalizer of Steele, Lea and Flood's SplitMix, OOPSLA 2014).
  static std::int32_t right_action(const Params& params, int at_row, int at_column) {
    if (params.mapping == 0) return 1;
    const auto cell = static_cast<std::uint64_t>(at_row * params.size + at_column + 1);
    std::uint64_t bits = (static_cast<std::uint64_t>(params.mapping) << 32) + cell * 0x9E3779B97F4A7C15;
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9;
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB;
    return static_cast<std::int32_t>(bits >> 63);
  }

  void render(const Params& params, Canvas& canvas) const {
    draw_header(canvas, Label("DEPTH ", row, " OF ", params.size),
                row < params.size ? ""
                : won(params)     ? "TREASURE"
                                  : "LOST");
    const Board board(below_header(canvas), params.size, params.size + 1);  // one more row, for who has passed the last
    const float side = board.side();
    for (int y = 0; y < params.size; ++y) {
      for (int x = 0; x <= y; ++x) {
        const Color water =
            mix(Color{38, 92, 140}, palette::kPanel, static_cast<float>(y) / static_cast<float>(params.size));
        canvas.rect(board.cell(x, y).inset(0.04F * side), x == y ? mix(water, palette::kGoal, 0.25F) : water,
                    0.12F * side);
      }
    }
    const Box chest = board.cell(params.size - 1, params.size).inset(0.14F * side);
    canvas.rect(chest, palette::kGold, 0.2F * side);
    canvas.rect({chest.x, chest.y + 0.4F * chest.height, chest.width, 0.12F * chest.height}, palette::kBackground);
    int x = 0;
    Point from = board.cell(0, 0).center();
    for (int y = 0; y < row; ++y) {
      x = std::clamp(x + ((moves >> y & 1) != 0 ? 1 : -1), 0, params.size - 1);
      const Point to = board.cell(x, y + 1).center();
      canvas.line(from, to, 0.12F * side, palette::kText.faded(150));
      from = to;
    }
    canvas.disc(from, 0.36F * side, palette::kAgent);
  }

 private:
  bool won(const Params& params) const { return moves == ~std::uint64_t{0} >> (64 - params.size); }
};

REGISTER_ENV(DeepSea, "deepsea");

}  // namespace dist_trainer
