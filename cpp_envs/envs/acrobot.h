// Acrobot: swing the tip of two hanging links above a line, with a motor at the joint between them. State and dynamics
// are those of Gymnasium's Acrobot-v1 (Runge-Kutta of fourth order, double precision), after Sutton, "Generalization in
// reinforcement learning: successful examples using sparse coarse coding" (NIPS 1996); its book's equations.
// Solved: mean return >= -100, Gymnasium's threshold.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "../registry.h"

namespace dist_trainer {

struct Acrobot {
  using Observation = float;
  using Action = std::int32_t;

  struct Params {
    int max_steps = 500;
    void visit(auto&& field) { field("max_steps", max_steps, 1, 1'000'000, "steps until the episode is truncated"); }
  };

  // Both links: 1 m, 1 kg with its centre in the middle, moment of inertia 1 kg m^2.
  static constexpr double kPi = std::numbers::pi, kGravity = 9.8, kTimeStep = 0.2, kCenter = 0.5;
  static constexpr double kMaxVelocity1 = 4 * kPi, kMaxVelocity2 = 9 * kPi;

  // theta1 (0: the first link hangs), theta2 (0: the second goes on straight), and their velocities, rad and rad/s.
  using State = std::array<double, 4>;
  State state;
  int torque, steps;  // the last torque, N m

  static Spec spec(const Params&) {
    return {.observation_shape = {6},
            .action = ActionSpec::discrete(3),
            .num_agents = 1,
            .metrics = {},
            .observation_low = static_cast<float>(-kMaxVelocity2),
            .observation_high = static_cast<float>(kMaxVelocity2),
            .picture = {320, 240}};
  }

  void reset(const Params&, Rng& rng) {
    for (double& value : state) value = rng.uniform(-0.1F, 0.1F);
    torque = steps = 0;
  }

  StepResult step(const Params& params, std::int32_t action, Rng&) {
    torque = action - 1;
    const State k1 = derivative(state), k2 = derivative(moved(k1, kTimeStep / 2));
    const State k3 = derivative(moved(k2, kTimeStep / 2)), k4 = derivative(moved(k3, kTimeStep));
    for (std::size_t i = 0; i < 4; ++i) state[i] += kTimeStep / 6 * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i]);
    state[0] = wrapped(state[0]);
    state[1] = wrapped(state[1]);
    state[2] = std::clamp(state[2], -kMaxVelocity1, kMaxVelocity1);
    state[3] = std::clamp(state[3], -kMaxVelocity2, kMaxVelocity2);
    ++steps;
    const bool up = -std::cos(state[0]) - std::cos(state[0] + state[1]) > 1;
    return {.reward = up ? 0.0F : -1.0F, .terminated = up, .truncated = !up && steps >= params.max_steps};
  }

  // {cosine and sine of theta1, of theta2, their velocities}
  void observe(const Params&, std::span<float> out) const {
    out[0] = static_cast<float>(std::cos(state[0]));
    out[1] = static_cast<float>(std::sin(state[0]));
    out[2] = static_cast<float>(std::cos(state[1]));
    out[3] = static_cast<float>(std::sin(state[1]));
    out[4] = static_cast<float>(state[2]);
    out[5] = static_cast<float>(state[3]);
  }

  void render(const Params&, Canvas& canvas) const {
    const double height = -std::cos(state[0]) - std::cos(state[0] + state[1]);
    draw_header(canvas, Label("HEIGHT ", Decimal{height, 2}), Label("STEP ", steps));
    constexpr float kLink = 46;  // pixels
    const Point shoulder{160, 134};
    const auto end = [](Point from, double angle) {
      return Point{from.x + kLink * static_cast<float>(std::sin(angle)),
                   from.y + kLink * static_cast<float>(std::cos(angle))};
    };
    const Point elbow = end(shoulder, state[0]), tip = end(elbow, state[0] + state[1]);
    const float line = shoulder.y - kLink;
    canvas.disc(shoulder, 2 * kLink + 7, palette::kPanel);
    canvas.rect({12, kHeaderHeight + 8, 296, line - kHeaderHeight - 8}, palette::kGoal.faded(26), 4);
    canvas.rect({12, line - 1, 296, 2}, palette::kGoal);
    canvas.disc(shoulder, 8, palette::kWall);
    canvas.line(shoulder, elbow, 10, palette::kAgent);
    canvas.line(elbow, tip, 10, palette::kViolet);
    canvas.disc(shoulder, 4, palette::kBackground);
    canvas.disc(elbow, 6, torque == 0 ? palette::kWall : torque > 0 ? palette::kGold : palette::kOrange);
    canvas.disc(tip, 7, height > 1 ? palette::kGoal : palette::kText);
  }

 private:
  State moved(const State& rates, double time) const {
    State there;
    for (std::size_t i = 0; i < 4; ++i) there[i] = state[i] + time * rates[i];
    return there;
  }

  // Gymnasium's cosines of angles less pi / 2 are written as sines here: they differ by rounding alone.
  State derivative(const State& at) const {
    const auto [theta1, theta2, velocity1, velocity2] = at;
    const double cosine2 = std::cos(theta2), sine2 = std::sin(theta2);
    const double d1 = kCenter * kCenter + (1 + kCenter * kCenter + 2 * kCenter * cosine2) + 2;
    const double d2 = kCenter * kCenter + kCenter * cosine2 + 1;
    const double phi2 = kCenter * kGravity * std::sin(theta1 + theta2);
    const double phi1 = -kCenter * velocity2 * velocity2 * sine2 - 2 * kCenter * velocity2 * velocity1 * sine2 +
                        (kCenter + 1) * kGravity * std::sin(theta1) + phi2;
    const double acceleration2 = (torque + d2 / d1 * phi1 - kCenter * velocity1 * velocity1 * sine2 - phi2) /
                                 (kCenter * kCenter + 1 - d2 * d2 / d1);
    return {velocity1, velocity2, -(d2 * acceleration2 + phi1) / d1, acceleration2};
  }

  // To [-pi, pi]; in one step an angle moves by less than 9 pi * 0.2 and what the motor and gravity add.
  static double wrapped(double angle) {
    while (angle > kPi) angle -= 2 * kPi;
    while (angle < -kPi) angle += 2 * kPi;
    return angle;
  }
};

REGISTER_ENV(Acrobot, "acrobot");

}  // namespace dist_trainer
