// CartPole: balance a pole on a cart that is pushed left or right. State and dynamics, bit for bit, are those of
// Gymnasium's CartPole-v1 (explicit Euler, double precision), after Barto, Sutton and Anderson (1983).
// Solved: mean return >= 475 of 500.
#pragma once

#include <cmath>
#include <numbers>

#include "../registry.h"

namespace dist_trainer {

struct CartPole {
  using Observation = float;
  using Action = std::int32_t;

  struct Params {
    int max_steps = 500;
    void visit(auto&& field) { field("max_steps", max_steps, 1, 1'000'000, "steps until the episode is truncated"); }
  };

  static constexpr double kGravity = 9.8, kMassPole = 0.1, kTotalMass = kMassPole + 1.0, kHalfLength = 0.5;
  static constexpr double kPoleMassLength = kMassPole * kHalfLength, kForce = 10.0, kTimeStep = 0.02;
  static constexpr double kMaxAngle = 12 * 2 * std::numbers::pi / 360, kMaxPosition = 2.4;

  double position, velocity, angle, angular_velocity;
  int steps;

  static Spec spec(const Params&) {
    return {.observation_shape = {4},
            .action = ActionSpec::discrete(2),
            .num_agents = 1,
            .metrics = {},
            .picture = {320, 240}};
  }

  void reset(const Params&, Rng& rng) {
    for (double* value : {&position, &velocity, &angle, &angular_velocity}) *value = rng.uniform(-0.05F, 0.05F);
    steps = 0;
  }

  StepResult step(const Params& params, std::int32_t action, Rng&) {
    const double force = action == 1 ? kForce : -kForce;
    const double cosine = std::cos(angle), sine = std::sin(angle);
    const double temp = (force + kPoleMassLength * (angular_velocity * angular_velocity) * sine) / kTotalMass;
    const double angular_acceleration =
        (kGravity * sine - cosine * temp) / (kHalfLength * (4.0 / 3.0 - kMassPole * (cosine * cosine) / kTotalMass));
    const double acceleration = temp - kPoleMassLength * angular_acceleration * cosine / kTotalMass;
    position += kTimeStep * velocity;
    velocity += kTimeStep * acceleration;
    angle += kTimeStep * angular_velocity;
    angular_velocity += kTimeStep * angular_acceleration;
    ++steps;
    const bool fell = std::abs(position) > kMaxPosition || std::abs(angle) > kMaxAngle;
    return {.reward = 1, .terminated = fell, .truncated = !fell && steps >= params.max_steps};
  }

  void observe(const Params&, std::span<float> out) const {
    out[0] = static_cast<float>(position);
    out[1] = static_cast<float>(velocity);
    out[2] = static_cast<float>(angle);
    out[3] = static_cast<float>(angular_velocity);
  }

  void render(const Params&, Canvas& canvas) const {
    draw_header(canvas, Label("ANGLE ", Decimal{angle * 180 / std::numbers::pi}), Label("STEP ", steps));
    constexpr float kScale = 58, kFloor = 190, kMiddle = 160;  // pixels of a metre; the rail's height; the centre's x
    const auto at = [](double metres) { return kMiddle + kScale * static_cast<float>(metres); };
    const float left = at(-kMaxPosition), right = at(kMaxPosition);
    canvas.rect({0, kFloor, 320, 240 - kFloor}, palette::kPanel);
    canvas.line({left, kFloor}, {right, kFloor}, 4, palette::kWall);
    for (const float end : {left, right}) canvas.rect({end - 3, kFloor - 12, 6, 24}, palette::kDanger, 2);

    const Point hinge{at(position), kFloor - 28};
    const auto reach = [hinge](double tilt, float length) {
      return Pose(hinge, tilt - std::numbers::pi / 2)(length, 0);
    };
    const auto length = 2 * static_cast<float>(kHalfLength) * kScale * 1.8F;  // longer than to scale
    canvas.polygon({hinge, reach(-kMaxAngle, length), reach(0, length * 1.02F), reach(kMaxAngle, length)},
                   palette::kGoal.faded(40));
    for (const float side : {-1.0F, 1.0F}) canvas.disc({hinge.x + side * 16, kFloor - 7}, 7, palette::kFaint);
    canvas.rect({hinge.x - 30, kFloor - 34, 60, 24}, palette::kAgent, 5);
    canvas.line(hinge, reach(angle, length), 8, palette::kGold);
    canvas.disc(hinge, 5, palette::kBackground);
  }
};

REGISTER_ENV(CartPole, "cartpole");

}  // namespace dist_trainer
