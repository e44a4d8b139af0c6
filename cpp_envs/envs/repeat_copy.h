// Repeat-copy: a sequence of random symbols is shown one by one; then it must be said again from memory, several times
// over. Nothing shows where in the sequence one is. After the copy tasks of Graves, Wayne and Danihelka, "Neural Turing
// machines" (arXiv 1410.5401), with rewards: an episode's return is the share of symbols that were right.
// Solved: >= 95 % right symbols; without memory 1 / symbols.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>

#include "../registry.h"

namespace dist_trainer {

struct RepeatCopy {
  using Observation = float;
  using Action = std::int32_t;

  static constexpr int kMaxLength = 64, kMaxRepeats = 16;
  struct Params {
    int length = 5;
    int symbols = 4;
    int repeats = 2;
    void visit(auto&& field) {
      field("length", length, 1, kMaxLength, "symbols of the sequence");
      field("symbols", symbols, 2, 26, "different ones, each as likely");
      field("repeats", repeats, 1, kMaxRepeats, "times that the sequence must be said");
    }
  };

  std::array<std::uint8_t, kMaxLength> sequence;
  std::array<std::uint64_t, kMaxRepeats> right;  // a bit for each symbol that was said right, by repeat
  int steps;

  static Spec spec(const Params& params) {
    return {.observation_shape = {params.symbols + 1},
            .action = ActionSpec::discrete(params.symbols),
            .num_agents = 1,
            .metrics = {},
            .observation_low = 0,
            .observation_high = 1,
            .picture = {320, 240}};
  }

  void reset(const Params& params, Rng& rng) {
    sequence.fill(0);
    for (int i = 0; i < params.length; ++i) sequence[at(i)] = static_cast<std::uint8_t>(rng.below(params.symbols));
    right.fill(0);
    steps = 0;
  }

  // What is said while the sequence is shown counts for nothing.
  StepResult step(const Params& params, std::int32_t action, Rng&) {
    const int said = steps++ - params.length;
    if (said < 0) return {};
    const int repeat = said / params.length, place = said % params.length;
    const bool hit = action == sequence[at(place)];
    right[at(repeat)] |= std::uint64_t{hit} << place;
    const int answers = params.length * params.repeats;
    return {.reward = hit ? 1 / static_cast<float>(answers) : 0.0F, .terminated = said + 1 == answers};
  }

  // {one entry for each symbol: 1 for the one that is shown; 1 when it is time to speak}
  void observe(const Params& params, std::span<float> out) const {
    std::ranges::fill(out, 0.0F);
    out[steps < params.length ? sequence[at(steps)] : at(params.symbols)] = 1;
  }

  // The sequence, and below it what was said of it.
  void render(const Params& params, Canvas& canvas) const {
    int hits = 0;
    for (const std::uint64_t row : right) hits += std::popcount(row);
    const int answers = std::max(0, steps - params.length);
    draw_header(canvas, Label("RIGHT ", hits, " OF ", answers), Label("STEP ", steps));
    const Box area = below_header(canvas, 12);
    const Board board({area.x, area.y, area.width, area.height}, params.length, params.repeats + 2);
    const float side = board.side(), round = 0.16F * side;
    const auto tile = [&](const Box& cell, Color color, int symbol, Color ink) {
      canvas.rect(cell.inset(0.06F * side), color, round);
      const char letter = static_cast<char>('A' + symbol);
      const int scale = std::min(4, static_cast<int>(side) / 10);
      const Point middle = cell.center();
      const auto half = static_cast<float>(Canvas::text_height(scale)) / 2;
      if (scale > 0) canvas.text({middle.x, middle.y - half}, {&letter, 1}, ink, Align::kCenter, scale);
    };
    for (int place = 0; place < params.length; ++place) {
      const int symbol = sequence[at(place)];
      const bool shown = place <= steps;
      tile(board.cell(place, 0), shown ? palette::kGold : palette::kGrid, symbol,
           shown ? palette::kBackground : palette::kFaint);
      for (int repeat = 0; repeat < params.repeats; ++repeat) {
        const int said = repeat * params.length + place;
        const Box cell = board.cell(place, repeat + 2);
        if (said >= answers) {
          canvas.rect(cell.inset(0.06F * side),
                      said == answers && steps >= params.length ? palette::kWall : palette::kPanel, round);
          continue;
        }
        const bool hit = (right[at(repeat)] >> place & 1) != 0;
        tile(cell, hit ? palette::kGoal : palette::kDanger, symbol, palette::kBackground);
      }
    }
    const Box now =
        steps < params.length ? board.cell(steps, 1) : board.cell((steps - params.length) % params.length, 1);
    const Point pointer = now.center();
    const float arm = 0.22F * side, way = steps < params.length ? -arm : arm;
    canvas.polygon(
        {{pointer.x - arm, pointer.y - way / 2}, {pointer.x + arm, pointer.y - way / 2}, {pointer.x, pointer.y + way}},
        palette::kText);
  }

 private:
  static std::size_t at(int index) { return static_cast<std::size_t>(index); }
};

REGISTER_ENV(RepeatCopy, "repeat_copy");

}  // namespace dist_trainer
