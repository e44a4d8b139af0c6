// Tetris by placements, on the standard board of 10 x 20, as in the literature on controllers (Thiery and Scherrer,
// "Building controllers for Tetris", ICGA Journal 32, 2009): each step shows the board and one of the seven pieces, all
// equally likely, and the action says how often it is turned and where it falls straight down. Full rows vanish. A
// placement is legal if the piece then lies within the board; the game ends when the next piece has none, and is
// truncated after so many pieces. The reward is the number of rows, less a cost for each empty cell that gets covered,
// which is given back when it is open again.
// Solved: as many rows per game as Dellacherie's controller (0.4 per piece that may be placed).
#pragma once

#include <algorithm>
#include <array>
#include <bit>

#include "../registry.h"

namespace dist_trainer {

struct Tetris {
  using Observation = float;
  using Action = std::int32_t;
  static constexpr int kWidth = 10, kHeight = 20, kPieces = 7, kTurns = 4, kPlacements = kTurns * kWidth;

  struct Params {
    int pieces = 500;
    double hole_cost = 0.25;
    void visit(auto&& field) {
      field("pieces", pieces, 1, 1'000'000'000, "placed in a game, then it is truncated");
      field("hole_cost", hole_cost, 0.0, 100.0,
            "of the reward for each empty cell below a filled one, back when it opens");
    }
  };

  std::array<std::uint16_t, kHeight> rows;  // from the lowest; bit x is column x
  std::array<std::int8_t, kWidth> heights;  // of the columns: above the highest filled cell
  // Of the piece's placements (turns * kWidth + the leftmost column): the row of its lowest cells; -1: not legal.
  std::array<std::int8_t, kPlacements> landings;
  std::int32_t piece, placed, lines;

  static Spec spec(const Params&) {
    return {.observation_shape = {kHeight * kWidth + kWidth + (kWidth - 1) + kPieces},
            .action = ActionSpec::discrete(kPlacements),
            .num_agents = 1,
            .metrics = {"lines", "pieces"},
            .observation_low = -1,
            .observation_high = 1,
            .picture = {240, 398}};
  }

  void reset(const Params&, Rng& rng) {
    rows.fill(0);
    heights.fill(0);
    placed = lines = 0;
    deal(rng);
  }

  StepResult step(const Params& params, std::int32_t action, Rng& rng) {
    const int holes_before = holes();
    const int cleared = place(kShapes[index(piece)][index(action / kWidth)], action % kWidth, landings[index(action)]);
    lines += cleared;
    ++placed;
    const double shaping = params.hole_cost * (holes_before - holes());
    const bool over = !deal(rng);
    return {.reward = static_cast<float>(cleared + shaping),
            .terminated = over,
            .truncated = !over && placed >= params.pieces};
  }

  // Empty cells below a filled one of their column.
  int holes() const {
    int below = 0;
    for (const int height : heights) below += height;
    return below - (4 * placed - kWidth * lines);  // each piece has filled four
  }

  // {cells from the lowest row, heights of the columns, each one's less its left neighbour's, which piece}
  void observe(const Params&, std::span<float> out) const {
    float* next = out.data();
    for (const int row : rows) {
      for (int x = 0; x < kWidth; ++x) *next++ = static_cast<float>(row >> x & 1);
    }
    for (const int height : heights) *next++ = static_cast<float>(height) * (1.0F / kHeight);
    for (std::size_t x = 1; x < kWidth; ++x)
      *next++ = static_cast<float>(heights[x] - heights[x - 1]) * (1.0F / kHeight);
    for (int i = 0; i < kPieces; ++i) *next++ = static_cast<float>(i == piece);
  }

  void legal(const Params&, std::span<bool> out) const {
    for (std::size_t i = 0; i < kPlacements; ++i) out[i] = landings[i] >= 0;
  }

  void metrics(const Params&, std::span<float> out) const {
    out[0] = static_cast<float>(lines);
    out[1] = static_cast<float>(placed);
  }

  // The board, the piece to be placed above its middle.
  void render(const Params&, Canvas& canvas) const {
    draw_header(canvas, Label("LINES ", lines), Label("PIECE ", placed));
    constexpr int kAbove = 3;
    const Board grid(below_header(canvas, 2), kWidth, kHeight + kAbove);
    const Box top = grid.cell(0, kAbove);
    canvas.rect({top.x, top.y, grid.side() * kWidth, grid.side() * kHeight}, palette::kPanel);
    const auto cell = [&](int x, int y) { return grid.cell(x, kHeight + kAbove - 1 - y); };
    for (int y = 0; y < kHeight; ++y) {
      for (int x = 0; x < kWidth; ++x) {
        const bool filled = rows[index(y)] >> x & 1;
        canvas.rect(cell(x, y).inset(filled ? 0.5F : 6), filled ? palette::kWall : palette::kGrid, filled ? 2.5F : 1);
      }
    }
    const Shape& shape = kShapes[index(piece)][0];
    const int left = (kWidth - shape.width) / 2;
    for (int y = 0; y < shape.height; ++y) {
      for (int x = 0; x < shape.width; ++x) {
        if (shape.rows[index(y)] >> x & 1) {
          canvas.rect(cell(left + x, kHeight + kAbove - shape.height + y).inset(0.5F), color_of(piece), 2.5F);
        }
      }
    }
  }

 private:
  struct Shape {
    int width = 0, height = 0;
    std::array<std::uint16_t, 4> rows{};  // from the lowest; bit x is its column x
    std::array<int, 4> low{}, high{};     // of each column: its lowest cell; above its highest
    bool distinct = true;                 // from the turns before

    constexpr void measure() {
      for (int x = 0; x < width; ++x) {
        int first = height, last = 0;
        for (int y = 0; y < height; ++y) {
          if ((rows[static_cast<std::size_t>(y)] >> x & 1) == 0) continue;
          first = std::min(first, y);
          last = y + 1;
        }
        low[static_cast<std::size_t>(x)] = first;
        high[static_cast<std::size_t>(x)] = last;
      }
    }

    constexpr Shape turned() const {  // clockwise
      Shape result{.width = height, .height = width};
      for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
          const int filled = rows[static_cast<std::size_t>(y)] >> x & 1;
          auto& row = result.rows[static_cast<std::size_t>(width - 1 - x)];
          row = static_cast<std::uint16_t>(row | filled << y);
        }
      }
      result.measure();
      return result;
    }
  };
  using Shapes = std::array<std::array<Shape, kTurns>, kPieces>;

  static constexpr Shapes make_shapes() {
    Shapes shapes{};
    // I, O, T, S, Z, J, L: width, height, and the rows from the lowest; the first column is the lowest bit.
    constexpr std::array<Shape, kPieces> kFirst{Shape{4, 1, {0b1111}},       Shape{2, 2, {0b11, 0b11}},
                                                Shape{3, 2, {0b111, 0b010}}, Shape{3, 2, {0b011, 0b110}},
                                                Shape{3, 2, {0b110, 0b011}}, Shape{3, 2, {0b111, 0b001}},
                                                Shape{3, 2, {0b111, 0b100}}};
    for (std::size_t kind = 0; kind < kPieces; ++kind) {
      shapes[kind][0] = kFirst[kind];
      shapes[kind][0].measure();
      for (std::size_t turns = 1; turns < kTurns; ++turns) {
        Shape& shape = shapes[kind][turns] = shapes[kind][turns - 1].turned();
        for (std::size_t other = 0; other < turns; ++other) shape.distinct &= shape.rows != shapes[kind][other].rows;
      }
    }
    return shapes;
  }
  static const Shapes kShapes;

  static constexpr std::size_t index(int i) { return static_cast<std::size_t>(i); }

  static Color color_of(int piece) { return palette::kSeries[index(piece + 1) % palette::kSeries.size()]; }

  // Draws the next piece and finds where it would come to lie; false if there is no place for it.
  bool deal(Rng& rng) {
    piece = rng.below(kPieces);
    landings.fill(-1);
    bool any = false;
    for (int turns = 0; turns < kTurns; ++turns) {
      const Shape& shape = kShapes[index(piece)][index(turns)];
      if (!shape.distinct) continue;
      for (int left = 0; left + shape.width <= kWidth; ++left) {
        int landing = 0;
        for (int x = 0; x < shape.width; ++x)
          landing = std::max(landing, heights[index(left + x)] - shape.low[index(x)]);
        if (landing + shape.height > kHeight) continue;
        landings[index(turns * kWidth + left)] = static_cast<std::int8_t>(landing);
        any = true;
      }
    }
    return any;
  }

  // Returns how many rows vanish.
  int place(const Shape& shape, int left, int landing) {
    int full = 0;
    for (int y = 0; y < shape.height; ++y) {
      std::uint16_t& row = rows[index(landing + y)];
      row = static_cast<std::uint16_t>(row | shape.rows[index(y)] << left);
      full += row == kFull;
    }
    for (int x = 0; x < shape.width; ++x)
      heights[index(left + x)] = static_cast<std::int8_t>(landing + shape.high[index(x)]);
    if (full > 0) remove_full_rows();
    return full;
  }

  void remove_full_rows() {
    const auto kept = std::remove(rows.begin(), rows.end(), kFull);
    std::fill(kept, rows.end(), std::uint16_t{0});
    heights.fill(0);
    for (int y = 0, found = 0; y < kHeight; ++y) {
      const int row = rows[index(kHeight - 1 - y)];
      for (int fresh = row & ~found; fresh != 0; fresh &= fresh - 1) {
        heights[index(std::countr_zero(static_cast<unsigned>(fresh)))] = static_cast<std::int8_t>(kHeight - y);
      }
      found |= row;
    }
  }

  static constexpr std::uint16_t kFull = (1 << kWidth) - 1;
};

inline constexpr Tetris::Shapes Tetris::kShapes = Tetris::make_shapes();

REGISTER_ENV(Tetris, "tetris");

}  // namespace dist_trainer
