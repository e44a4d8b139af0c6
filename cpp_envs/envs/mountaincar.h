// MountainCar: a car in a valley, too weak to climb out at once, must swing back and forth. State and dynamics, bit for
// bit, are those of Gymnasium's MountainCar-v0 (double precision), after Moore, "Efficient memory-based learning for
// robot control" (1990). The reward is -1 for each step until the flag.
// Solved: mean return >= -110, Gymnasium's threshold. Whoever acts at random never gets there within 200 steps.
#pragma once

#include <algorithm>
#include <cmath>

#include "../registry.h"

namespace dist_trainer {

struct MountainCar {
  using Observation = float;
  using Action = std::int32_t;

  struct Params {
    int max_steps = 200;
    double anywhere = 0;
    void visit(auto&& field) {
      field("max_steps", max_steps, 1, 1'000'000, "steps until the episode is truncated");
      // "Exploring starts", Sutton and Barto, "Reinforcement Learning" (2018), 5.3: chance alone never meets the flag.
      field("anywhere", anywhere, 0.0, 1.0, "share of episodes that begin at any place with any speed, for training");
    }
  };

  static constexpr double kForce = 0.001, kGravity = 0.0025, kMaxSpeed = 0.07;
  static constexpr double kLeft = -1.2, kRight = 0.6, kFlag = 0.5;

  double position, velocity;
  int push, steps;  // the last push: -1, 0 or 1

  static Spec spec(const Params&) {
    return {.observation_shape = {2},
            .action = ActionSpec::discrete(3),
            .num_agents = 1,
            .metrics = {},
            .observation_low = static_cast<float>(kLeft),
            .observation_high = static_cast<float>(kRight),
            .picture = {320, 240}};
  }

  void reset(const Params& params, Rng& rng) {
    push = steps = 0;
    if (params.anywhere > 0 && rng.chance(static_cast<float>(params.anywhere))) {
      position = rng.uniform(-1.19F, 0.5F);  // exact in float32: an observation shows the whole state
      velocity = rng.uniform(-0.069F, 0.069F);
      return;
    }
    position = rng.uniform(-0.6F, -0.4F);
    velocity = 0;
  }

  StepResult step(const Params& params, std::int32_t action, Rng&) {
    push = action - 1;
    velocity += push * kForce + std::cos(3 * position) * -kGravity;
    velocity = std::clamp(velocity, -kMaxSpeed, kMaxSpeed);
    position = std::clamp(position + velocity, kLeft, kRight);
    if (position == kLeft && velocity < 0) velocity = 0;
    ++steps;
    const bool there = position >= kFlag && velocity >= 0;
    return {.reward = -1, .terminated = there, .truncated = !there && steps >= params.max_steps};
  }

  void observe(const Params&, std::span<float> out) const {
    out[0] = static_cast<float>(position);
    out[1] = static_cast<float>(velocity);
  }

  void render(const Params&, Canvas& canvas) const {
    draw_header(canvas, Label("SPEED ", Decimal{1000 * velocity, 0}), Label("STEP ", steps));
    const auto width = static_cast<float>(canvas.width()), height = static_cast<float>(canvas.height());
    const auto across = [&](double x) { return width * static_cast<float>((x - kLeft) / (kRight - kLeft)); };
    const auto ground = [](double x) { return 222 - 135 * static_cast<float>(0.5 + 0.5 * std::sin(3 * x)); };
    for (float x = 0; x < width; x += 2) {
      const float top = ground(kLeft + (kRight - kLeft) * static_cast<double>((x + 1) / width));
      canvas.rect({x, top, 2, height - top}, palette::kPanel);
      canvas.rect({x, top - 1, 2, 4}, palette::kWall);
    }
    const Point foot{across(kFlag), ground(kFlag)};
    canvas.line(foot, {foot.x, foot.y - 40}, 3, palette::kText);
    canvas.polygon({{foot.x, foot.y - 41}, {foot.x - 22, foot.y - 33}, {foot.x, foot.y - 25}}, palette::kGoal);
    const double run = 0.5 * (kRight - kLeft) / static_cast<double>(width);  // of half a pixel
    const double slope = static_cast<double>(ground(position + run) - ground(position - run));
    const Pose car({across(position), ground(position) - 2}, std::atan(slope));
    canvas.polygon({car(-17, -17), car(-12, -17), car(-8, -25), car(7, -25), car(12, -17), car(18, -16), car(18, -6),
                    car(-18, -6)},
                   palette::kAgent);
    canvas.polygon({car(-7, -22), car(5, -22), car(8, -17), car(-9, -17)}, palette::kBackground);
    for (const float wheel : {-10.0F, 10.0F}) {
      canvas.disc(car(wheel, -5), 6, palette::kFaint);
      canvas.disc(car(wheel, -5), 2.5F, palette::kBackground);
    }
    const auto side = static_cast<float>(push);
    if (push != 0) canvas.arrow(car(24 * side, -12), car(46 * side, -12), 4, palette::kGold);
  }
};

REGISTER_ENV(MountainCar, "mountaincar");

}  // namespace dist_trainer
