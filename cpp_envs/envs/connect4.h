// Connect Four on 7 columns of 6: who first has four stones in a line wins. Two agents play each other, both by the
// same policy; who of them begins is drawn. With `opponent` there is one agent, against an alpha-beta search of that
// depth.
//
// Agents move in turn, one in a step. The other has one legal choice meanwhile, to wait, which says nothing about his
// policy. He does not rest (see env.h): he is rewarded while he waits, as the loser of a game is with -1 for the stone
// of the winner, and his memory goes on, while who rests begins anew. Values of positions after one's own stone are
// learned as well.
// Solved: against alpha-beta of depth 4, at least 90 % of the points (1 for a win, a half for a draw).
//
// Boards are bits, 7 of each column from the lowest cell; the seventh stays empty.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "../registry.h"

namespace dist_trainer {

struct Connect4 {
  using Observation = std::uint8_t;
  using Action = std::int32_t;
  using Bits = std::uint64_t;
  static constexpr int kColumns = 7, kRows = 6, kCells = kColumns * kRows, kWait = kColumns, kPlayers = 2;

  struct Params {
    int opponent = 0;
    void visit(auto&& field) {
      field("opponent", opponent, 0, 42, "0: self-play; else the depth, in stones, of an alpha-beta search");
    }
    int agents() const { return opponent == 0 ? kPlayers : 1; }
  };

  std::array<Bits, kPlayers> stones;
  std::int32_t played, first;  // stones on the board; who began
  std::int32_t winner;         // -1: nobody (yet)
  std::int32_t last_column;    // -1: none

  static Spec spec(const Params& params) {
    return {.observation_shape = {2 * kCells + 1},
            .action = ActionSpec::discrete(kColumns + 1),
            .num_agents = params.agents(),
            .teams = params.agents(),
            .metrics = {"points", "draws"},
            .picture = {310, 300}};
  }

  void reset(const Params&, Rng& rng) {
    stones = {0, 0};
    played = 0;
    winner = last_column = -1;
    first = rng.below(kPlayers);
  }

  // Agent i is player i; the search, if there is one, is player 1.
  void step(const Params& params, std::span<const Action> actions, std::span<StepResult> results, Rng& rng) {
    const int player = on_turn();
    const bool searched = player >= params.agents();
    last_column = searched ? best_column(params.opponent, rng) : actions[index(player)];
    Bits& own = stones[index(player)];
    own |= lowest_empty(all(), last_column);
    ++played;
    if (has_four(own)) winner = player;
    for (int agent = 0; agent < params.agents(); ++agent) {
      const float reward = winner < 0 ? 0.0F : winner == agent ? 1.0F : -1.0F;
      results[index(agent)] = {.reward = reward, .terminated = winner >= 0 || played == kCells};
    }
  }

  // {own stones, the other's, each from the lowest row; 255 where there is one; 255 if it is one's own turn}
  void observe(const Params& params, std::span<std::uint8_t> out) const {
    std::uint8_t* next = out.data();
    for (int agent = 0; agent < params.agents(); ++agent) {
      for (const Bits side : {stones[index(agent)], stones[index(1 - agent)]}) {
        for (int row = 0; row < kRows; ++row) {
          for (int column = 0; column < kColumns; ++column) *next++ = (side & bit(column, row)) != 0 ? 255 : 0;
        }
      }
      *next++ = on_turn() == agent ? 255 : 0;
    }
  }

  void legal(const Params& params, std::span<bool> out) const {
    bool* next = out.data();
    for (int agent = 0; agent < params.agents(); ++agent) {
      const bool moves = on_turn() == agent;
      for (int column = 0; column < kColumns; ++column) *next++ = moves && is_open(all(), column);
      *next++ = !moves;
    }
  }

  void metrics(const Params& params, std::span<float> out) const {
    for (int agent = 0; agent < params.agents(); ++agent) {
      out[2 * index(agent)] = winner < 0 ? 0.5F : static_cast<float>(winner == agent);
      out[2 * index(agent) + 1] = static_cast<float>(winner < 0);
    }
  }

  void render(const Params& params, Canvas& canvas) const {
    const bool mine = on_turn() == 0;
    draw_header(
        canvas, Label("STONE ", played),
        params.opponent == 0 ? Label(mine ? "BLUE" : "GOLD", " TO MOVE") : Label("GOLD: DEPTH ", params.opponent));
    const Board grid(below_header(canvas), kColumns, kRows);
    canvas.rect(grid.box().inset(-3), palette::kPanel, 10);
    for (int column = 0; column < kColumns; ++column) {
      for (int row = 0; row < kRows; ++row) {
        const Point middle = grid.cell(column, kRows - 1 - row).center();
        const bool blue = (stones[0] & bit(column, row)) != 0, gold = (stones[1] & bit(column, row)) != 0;
        const Color color = blue ? palette::kAgent : gold ? palette::kGold : palette::kBackground;
        canvas.disc(middle, 0.42F * grid.side(), color);
        if (!blue && !gold) continue;
        canvas.ring(middle, 0.31F * grid.side(), 2, palette::kBackground.faded(90));
        const bool newest = column == last_column && !is_at(all(), column, row + 1);
        if (newest) canvas.disc(middle, 0.12F * grid.side(), palette::kText);
      }
    }
  }

 private:
  static constexpr int kStride = kRows + 1;  // bits of a column
  static constexpr int kWin = 1000;          // more than any heuristic value; less the stones until then

  static constexpr std::size_t index(int i) { return static_cast<std::size_t>(i); }
  static constexpr Bits bit(int column, int row) { return Bits{1} << (column * kStride + row); }
  static constexpr Bits cells_of(int column) { return ((Bits{1} << kRows) - 1) << (column * kStride); }
  static constexpr Bits board() {
    Bits cells = 0;
    for (int column = 0; column < kColumns; ++column) cells |= cells_of(column);
    return cells;
  }

  int on_turn() const { return (first + played) % kPlayers; }
  Bits all() const { return stones[0] | stones[1]; }
  static bool is_at(Bits taken, int column, int row) { return (taken & bit(column, row)) != 0; }
  static bool is_open(Bits taken, int column) { return !is_at(taken, column, kRows - 1); }
  static Bits lowest_empty(Bits taken, int column) { return (taken + bit(column, 0)) & cells_of(column); }

  static bool has_four(Bits own) {
    for (const int along : {1, kStride - 1, kStride, kStride + 1}) {
      const Bits pairs = own & own >> along;
      if ((pairs & pairs >> 2 * along) != 0) return true;
    }
    return false;
  }

  // Cells that would complete four, with stones on top of each other or not.
  static Bits winning_cells(Bits own, Bits taken) {
    Bits cells = own << 1 & own << 2 & own << 3;
    for (const int along : {kStride - 1, kStride, kStride + 1}) {
      const Bits above = own << along & own << 2 * along, below = own >> along & own >> 2 * along;
      cells |= above & (own << 3 * along | own >> along);
      cells |= below & (own >> 3 * along | own << along);
    }
    return cells & board() & ~taken;
  }

  // For who has `own`: 10 for each cell that would win, 3, 2, 1 for stones in, beside, two beside the middle column.
  static int heuristic(Bits own, Bits other) {
    constexpr Bits kInner = cells_of(3), kMiddle = kInner | cells_of(2) | cells_of(4),
                   kOuter = kMiddle | cells_of(1) | cells_of(5);
    const auto value = [taken = own | other](Bits side) {
      return 10 * std::popcount(winning_cells(side, taken)) + std::popcount(side & kInner) +
             std::popcount(side & kMiddle) + std::popcount(side & kOuter);
    };
    return value(own) - value(other);
  }

  // Negamax with alpha-beta (Knuth and Moore, 1975), for who has `own` and moves: exact between low and high.
  static int search(Bits own, Bits other, int depth, int ply, int low, int high) {
    const Bits taken = own | other;
    if (taken == board()) return 0;
    if (depth == 0) return heuristic(own, other);
    for (const int column : kFromTheMiddle) {
      if (!is_open(taken, column)) continue;
      const Bits next = own | lowest_empty(taken, column);
      const int value = has_four(next) ? kWin - ply : -search(other, next, depth - 1, ply + 1, -high, -low);
      if (value >= high) return value;
      low = std::max(low, value);
    }
    return low;
  }

  // Of the best columns any, at random.
  int best_column(int depth, Rng& rng) const {
    const Bits own = stones[index(on_turn())], other = stones[index(1 - on_turn())];
    int best = -kWin - 1, chosen = -1, equal = 0;
    for (const int column : kFromTheMiddle) {
      if (!is_open(all(), column)) continue;
      const Bits next = own | lowest_empty(all(), column);
      // From best - 1 on values are exact: those that equal the best are known.
      const int value = has_four(next) ? kWin : -search(other, next, depth - 1, 1, -kWin - 1, 1 - best);
      if (value > best) equal = 0;
      if (value < best) continue;
      best = value;
      if (rng.below(++equal) == 0) chosen = column;
    }
    return chosen;
  }

  static constexpr std::array<int, kColumns> kFromTheMiddle{3, 2, 4, 1, 5, 0, 6};
};

REGISTER_ENV(Connect4, "connect4");

}  // namespace dist_trainer
