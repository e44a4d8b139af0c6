// 2048 (Gabriele Cirulli, 2014): slide all tiles of a 4 x 4 board to one side; two equal ones that meet become one of
// twice the number, once per move. Then a tile appears in a random empty cell, a 2 in 9 of 10 cases, else a 4. The game
// ends when no move changes the board, and goes on after the 2048 tile. A move that changes nothing is not legal.
// Solved: the 2048 tile in at least 90 % of the games.
//
// A board is 16 exponents of 4 bits, so that the moves of a row are looked up in a table of 2^16 rows (as in Robert
// Xiao's 2048-ai). The largest tile is 32768: two of those do not merge.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <vector>

#include "../registry.h"

namespace dist_trainer {

struct Game2048 {
  using Observation = std::uint8_t;
  using Action = std::int32_t;
  using Cells = std::uint64_t;  // row after row, each from its left end; 4 bits of a cell, the first cell's lowest
  enum { kLeft, kRight, kUp, kDown, kMoves };
  static constexpr int kSide = 4, kCells = kSide * kSide, kExponents = 16, kGoal = 11;

  struct Params {
    void visit(auto&&) {}
  };

  Cells board;
  std::array<Cells, kMoves> moved;  // the board after each move; as it is where the move is not legal
  std::int64_t score;               // the sum of all tiles that were made by merging
  std::int32_t steps, largest;      // exponent of the largest tile

  static Spec spec(const Params&) {
    return {.observation_shape = {kCells * kExponents},
            .action = ActionSpec::discrete(kMoves),
            .num_agents = 1,
            .metrics = {"max_tile", "reached_2048", "score"},
            .picture = {280, 320}};
  }

  void reset(const Params&, Rng& rng) {
    board = 0;
    score = steps = largest = 0;
    add_tile(rng);
    add_tile(rng);
    look_ahead();
  }

  // Each merge pays a tenth of the exponent that it makes: long games pay, and large tiles somewhat more.
  StepResult step(const Params&, std::int32_t action, Rng& rng) {
    float reward = 0;
    const Cells lines = action < kUp ? board : transposed(board);
    for (int i = 0; i < kSide; ++i) {
      const Merges& merges = kTable.merges[row_of(lines, i)];  // the same to the left as to the right
      reward += 0.1F * static_cast<float>(merges.exponents);
      score += merges.points;
      largest = std::max(largest, std::int32_t{merges.largest});
    }
    board = moved[static_cast<std::size_t>(action)];
    add_tile(rng);
    look_ahead();
    ++steps;
    return {.reward = reward, .terminated = std::ranges::all_of(moved, [this](Cells next) { return next == board; })};
  }

  // Which exponent each cell has (0: it is empty), of 16: 255, else 0.
  void observe(const Params&, std::span<std::uint8_t> out) const {
    std::ranges::fill(out, std::uint8_t{0});
    for (std::size_t i = 0; i < kCells; ++i) out[kExponents * i + (board >> (4 * i) & 15)] = 255;
  }

  void legal(const Params&, std::span<bool> out) const {
    for (std::size_t move = 0; move < kMoves; ++move) out[move] = moved[move] != board;
  }

  void metrics(const Params&, std::span<float> out) const {
    out[0] = static_cast<float>(1 << largest);
    out[1] = static_cast<float>(largest >= kGoal);
    out[2] = static_cast<float>(score);
  }

  void render(const Params&, Canvas& canvas) const {
    draw_header(canvas, Label("SCORE ", score), Label("MOVE ", steps));
    const Board grid(below_header(canvas), kSide, kSide);
    canvas.rect(grid.box().inset(-3), palette::kPanel, 8);
    for (int i = 0; i < kCells; ++i) {
      const Box tile = grid.cell(i % kSide, i / kSide).inset(3);
      const int exponent = static_cast<int>(board >> (4 * i) & 15);
      if (exponent == 0) {
        canvas.rect(tile, palette::kGrid.faded(150), 6);
        continue;
      }
      if (exponent >= 10) canvas.rect(tile.inset(-2), palette::kText, 7);
      canvas.rect(tile, tile_color(exponent), 6);
      const Label number(1 << exponent);
      const int scale = exponent < 10 ? 3 : 2;
      const auto height = static_cast<float>(Canvas::text_height(scale));
      const Point middle = tile.center();
      canvas.text({middle.x, middle.y - height / 2}, number, exponent < 3 ? palette::kText : palette::kBackground,
                  Align::kCenter, scale);
    }
  }

 private:
  // Of one row: the sum of the exponents and of the tiles that merging makes, and the largest exponent made.
  struct Merges {
    std::int32_t points;
    std::uint8_t exponents, largest;
  };

  struct Table {
    std::vector<std::uint16_t> left = std::vector<std::uint16_t>(1 << 16), right = left;
    std::vector<Merges> merges = std::vector<Merges>(1 << 16);

    Table() {
      for (std::size_t row = 0; row < left.size(); ++row) {
        left[row] = slide(row, merges[row]);
        Merges same;
        right[row] = mirrored(slide(mirrored(row), same));
      }
    }

    static std::uint16_t mirrored(std::size_t row) {
      return static_cast<std::uint16_t>((row >> 12 & 15) | (row >> 4 & 0xF0) | (row << 4 & 0xF00) | (row << 12));
    }

    static std::uint16_t slide(std::size_t row, Merges& merges) {
      merges = {};
      std::array<std::size_t, kSide> out{};
      std::size_t filled = 0;
      bool mergeable = false;  // the last tile that is out
      for (int i = 0; i < kSide; ++i) {
        const std::size_t tile = row >> (4 * i) & 15;
        if (tile == 0) continue;
        if (mergeable && out[filled - 1] == tile && tile < 15) {
          const std::size_t made = ++out[filled - 1];
          merges.points += 1 << made;
          merges.exponents = static_cast<std::uint8_t>(merges.exponents + made);
          merges.largest = std::max(merges.largest, static_cast<std::uint8_t>(made));
          mergeable = false;
        } else {
          out[filled++] = tile;
          mergeable = true;
        }
      }
      return static_cast<std::uint16_t>(out[0] | out[1] << 4 | out[2] << 8 | out[3] << 12);
    }
  };
  static inline const Table kTable;

  static std::size_t row_of(Cells cells, int row) { return cells >> (16 * row) & 0xFFFF; }

  // Rows become columns: 2 x 2 blocks of cells by themselves, then the blocks.
  static Cells transposed(Cells x) {
    const Cells y = (x & 0xF0F00F0FF0F00F0F) | (x & 0x0000F0F00000F0F0) << 12 | (x >> 12 & 0x0000F0F00000F0F0);
    return (y & 0xFF00FF0000FF00FF) | (y & 0x00000000FF00FF00) << 24 | (y >> 24 & 0x00000000FF00FF00);
  }

  static Cells slid(Cells cells, const std::vector<std::uint16_t>& by_row) {
    Cells result = 0;
    for (int row = 0; row < kSide; ++row) result |= Cells{by_row[row_of(cells, row)]} << (16 * row);
    return result;
  }

  void look_ahead() {
    const Cells columns = transposed(board);
    moved = {slid(board, kTable.left), slid(board, kTable.right), transposed(slid(columns, kTable.left)),
             transposed(slid(columns, kTable.right))};
  }

  void add_tile(Rng& rng) {
    Cells taken = board | board >> 2;
    taken |= taken >> 1;
    Cells empty = ~taken & 0x1111111111111111;  // the lowest bit of each empty cell
    for (int skip = rng.below(std::popcount(empty)); skip > 0; --skip) empty &= empty - 1;
    const Cells tile = rng.below(10) == 0 ? 2 : 1;
    board |= tile << std::countr_zero(empty);
    largest = std::max(largest, static_cast<std::int32_t>(tile));
  }

  static Color tile_color(int exponent) {
    static constexpr std::array<Color, 12> kColors{
        palette::kWall,   palette::kSeries[6], palette::kAgent,  palette::kSeries[4], palette::kGoal, palette::kGold,
        palette::kOrange, palette::kDanger,    palette::kViolet, palette::kAgent,     palette::kGold, palette::kText};
    return kColors[static_cast<std::size_t>(std::min(exponent, 12) - 1)];
  }
};

REGISTER_ENV(Game2048, "game2048");

}  // namespace dist_trainer
