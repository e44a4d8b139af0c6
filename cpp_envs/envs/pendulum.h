// Pendulum: swing a pendulum up, with a motor too weak to lift it at once, and hold it there. State and dynamics are,
// bit for bit, those of Gymnasium's Pendulum-v1: double precision, but what it computes of its float32 actions alone in
// float. A step costs angle^2 + velocity^2 / 10 + torque^2 / 1000, the angle from upright; only time ends an episode.
// Solved: mean return >= -200. Gymnasium sets no threshold; optimal control (benchmarks/reference) reaches -140, chance
// -1200.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "../registry.h"

namespace dist_trainer {

struct Pendulum {
  using Observation = float;
  using Action = float;

  struct Params {
    int max_steps = 200;
    void visit(auto&& field) { field("max_steps", max_steps, 1, 1'000'000, "steps until the episode is truncated"); }
  };

  static constexpr double kPi = std::numbers::pi, kGravity = 10, kTimeStep = 0.05, kMaxVelocity = 8;
  static constexpr float kMaxTorque = 2;

  double angle, velocity;  // rad from upright, counter-clockwise, over all turns; rad/s
  float torque;            // the last one, N m
  int steps;

  static Spec spec(const Params&) {
    return {.observation_shape = {3},
            .action = ActionSpec::continuous({-kMaxTorque}, {kMaxTorque}),
            .num_agents = 1,
            .metrics = {},
            .observation_low = static_cast<float>(-kMaxVelocity),
            .observation_high = static_cast<float>(kMaxVelocity),
            .picture = {320, 240}};
  }

  void reset(const Params&, Rng& rng) {
    angle = rng.uniform(static_cast<float>(-kPi), static_cast<float>(kPi));
    velocity = rng.uniform(-1, 1);
    torque = 0;
    steps = 0;
  }

  StepResult step(const Params& params, std::span<const float> action, Rng&) {
    torque = action[0];
    const double turned = normalized(angle);
    const double cost = turned * turned + 0.1 * (velocity * velocity) + static_cast<double>(0.001F * (torque * torque));
    const double pull = 3 * kGravity / 2 * std::sin(angle) + static_cast<double>(3 * torque);
    velocity = std::clamp(velocity + pull * kTimeStep, -kMaxVelocity, kMaxVelocity);
    angle += velocity * kTimeStep;
    ++steps;
    return {.reward = static_cast<float>(-cost), .truncated = steps >= params.max_steps};
  }

  void observe(const Params&, std::span<float> out) const {
    out[0] = static_cast<float>(std::cos(angle));
    out[1] = static_cast<float>(std::sin(angle));
    out[2] = static_cast<float>(velocity);
  }

  void render(const Params&, Canvas& canvas) const {
    draw_header(canvas, Label("ANGLE ", Decimal{normalized(angle) * 180 / kPi}), Label("STEP ", steps));
    constexpr float kLength = 84, kArc = 44;  // pixels
    const Point hinge{160, 134};
    const auto at = [hinge](double turn, float length) {  // counter-clockwise from upright
      return Pose(hinge, -turn - kPi / 2)(length, 0);
    };
    canvas.disc(hinge, kLength + 14, palette::kPanel);
    canvas.polygon({hinge, at(0.16, kLength + 13), at(0, kLength + 14), at(-0.16, kLength + 13)},
                   palette::kGoal.faded(70));
    const Point tip = at(angle, kLength);
    canvas.line(hinge, tip, 16, palette::kAgent);
    canvas.disc(hinge, 8, palette::kText);
    const double reach = static_cast<double>(torque / kMaxTorque) * 1.2;  // rad of the arc that shows the torque
    constexpr int kParts = 12;
    for (int part = 0; part < kParts && torque != 0; ++part) {
      canvas.line(at(angle + kPi + reach * (2.0 * part / kParts - 1), kArc),
                  at(angle + kPi + reach * (2.0 * (part + 1) / kParts - 1), kArc), 4, palette::kGold);
    }
    if (std::abs(torque) > 0.1F) {
      const double head = angle + kPi + reach, back = std::copysign(0.02, reach);
      const Point from = at(head - back, kArc), to = at(head + std::copysign(0.3, reach), kArc);
      canvas.arrow(from, to, 4, palette::kGold);
    }
  }

 private:
  // To [-pi, pi), with the remainder of Python.
  static double normalized(double turn) {
    double rest = std::fmod(turn + kPi, 2 * kPi);
    if (rest < 0) rest += 2 * kPi;
    return rest - kPi;
  }
};

REGISTER_ENV(Pendulum, "pendulum");

}  // namespace dist_trainer
