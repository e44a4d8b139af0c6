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
    return {.observation_shape = {4}, .action = ActionSpec::discrete(2), .num_agents = 1, .metrics = {}};
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
};

REGISTER_ENV(CartPole, "cartpole");

}  // namespace dist_trainer
