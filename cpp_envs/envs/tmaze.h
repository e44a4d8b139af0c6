// T-maze: a cue in the first observation says which way to turn at the end of a corridor. Nothing after it repeats the
// cue, so only a memory solves the maze. Rewards as in Bakker, "Reinforcement learning with long short-term memory"
// (NIPS 2001): 4 for the right turn, -0.1 for the wrong one and for every step that does not move.
// Solved: >= 95 % right turns; without memory 50 %.
#pragma once

#include "../registry.h"

namespace dist_trainer {

struct TMaze {
  using Observation = float;
  using Action = std::int32_t;

  struct Params {
    int corridor = 20;
    void visit(auto&& field) { field("corridor", corridor, 1, 10'000, "steps from the start to the junction"); }
    // A uniformly random walker needs 3 * corridor + 1.5 steps on average.
    int max_steps() const { return 10 * corridor + 20; }
  };
  enum : std::int32_t { kForward, kLeft, kRight };  // a turn does nothing in the corridor, nor forward at its end

  int position, steps;
  bool cue_is_right, turned_right_way;

  static Spec spec(const Params&) {
    return {.observation_shape = {4},
            .action = ActionSpec::discrete(3),
            .num_agents = 1,
            .metrics = {"success"},
            .observation_low = 0,
            .observation_high = 1,
            .picture = {400, 176}};
  }

  void reset(const Params&, Rng& rng) {
    position = steps = 0;
    cue_is_right = rng.chance(0.5F);
    turned_right_way = false;
  }

  StepResult step(const Params& params, std::int32_t action, Rng&) {
    ++steps;
    const bool at_junction = position == params.corridor;
    if (at_junction && action != kForward) {
      turned_right_way = (action == kRight) == cue_is_right;
      return {.reward = turned_right_way ? 4.0F : -0.1F, .terminated = true};
    }
    const bool moves = !at_junction && action == kForward;
    position += moves;
    return {.reward = moves ? 0.0F : -0.1F, .terminated = false, .truncated = steps >= params.max_steps()};
  }

  // {cue left, cue right, in the corridor, at the junction}: the position in the corridor is not shown.
  void observe(const Params& params, std::span<float> out) const {
    const bool at_junction = position == params.corridor;
    out[0] = static_cast<float>(steps == 0 && !cue_is_right);
    out[1] = static_cast<float>(steps == 0 && cue_is_right);
    out[2] = static_cast<float>(!at_junction);
    out[3] = static_cast<float>(at_junction);
  }

  void metrics(const Params&, std::span<float> out) const { out[0] = static_cast<float>(turned_right_way); }

  // Forward is to the right, so that the left turn is upwards. The cue stays at the start, for those who have
  // forgotten.
  void render(const Params& params, Canvas& canvas) const {
    draw_header(canvas, Label("POSITION ", position, "/", params.corridor),
                Label("STEP ", steps, "/", params.max_steps()));
    constexpr float kStart = 52, kEnd = 368, kMiddle = 101, kHalf = 16;  // of the corridor's width
    constexpr float kReach = 62;                                         // of the arms, from the middle
    constexpr Box kCorridor{kStart - kHalf, kMiddle - kHalf, kEnd - kStart + 2 * kHalf, 2 * kHalf};
    constexpr Box kArms{kEnd - kHalf, kMiddle - kReach, 2 * kHalf, 2 * kReach};
    for (const Box& box : {kCorridor, kArms}) canvas.rect(box.inset(-3), palette::kWall);
    for (const Box& box : {kCorridor, kArms}) canvas.rect(box, palette::kPanel);
    const float stride = (kEnd - kStart) / static_cast<float>(params.corridor);
    const auto along = [=](int place) { return kStart + stride * static_cast<float>(place); };
    if (stride >= 6) {
      for (int place = 0; place < params.corridor; ++place) canvas.disc({along(place), kMiddle}, 1.5F, palette::kWall);
    }
    const float way = cue_is_right ? 1.0F : -1.0F;
    canvas.disc({kEnd, kMiddle + way * (kReach - kHalf)}, 9, palette::kGoal);
    canvas.disc({kEnd, kMiddle - way * (kReach - kHalf)}, 9, palette::kDanger);
    const float sign = kMiddle + way * 42;
    canvas.arrow({kStart, sign - way * 14}, {kStart, sign + way * 14}, 4,
                 steps == 0 ? palette::kGold : palette::kGold.faded(110));
    canvas.disc({along(position), kMiddle}, 10, palette::kAgent);
  }
};

REGISTER_ENV(TMaze, "tmaze");

}  // namespace dist_trainer
