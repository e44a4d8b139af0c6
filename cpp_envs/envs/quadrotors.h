// Quadrotors: a swarm of planar quadrotors in a square arena, seen from the side. Each has two rotors and flies from
// waypoint to waypoint of its own, with a deadline for each. Who touches a wall or another one, or turns over, crashes
// and begins anew elsewhere, within the same episode: so every waypoint counts once, whoever missed it.
// The equations are those of the planar quadrotor of Tedrake's Underactuated Robotics, chapter 3.
// Reward: metres that the waypoint came nearer, 2 for reaching it, -20 for a crash. The metric `cost` is the quadratic
// cost, per second, that the linear-quadratic regulator of benchmarks/reference/quadrotors.py minimizes.
// Solved: >= 90 % of the waypoints reached in time (`in_time`).
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include "../registry.h"

namespace dist_trainer {

struct Quadrotors {
  using Observation = float;
  using Action = float;

  static constexpr int kMaxAgents = 64, kNeighbours = 3, kSubsteps = 2;
  static constexpr float kTime = 0.04F, kSubstep = kTime / kSubsteps;  // SI units, as all here
  struct Params {
    int agents = 16;
    int max_steps = 500;
    float arena = 20;
    float deadline = 4;
    void visit(auto&& field) {
      field("agents", agents, 1, kMaxAgents, "quadrotors in one arena");
      field("max_steps", max_steps, 1, 1'000'000, "steps of 0.04 s until all are truncated");
      field("arena", arena, 6.0F, 100.0F, "its side in metres");
      field("deadline", deadline, 0.5F, 60.0F, "seconds in which a waypoint must be reached");
    }
    std::size_t count() const { return static_cast<std::size_t>(agents); }
    int deadline_steps() const { return static_cast<int>(std::lround(deadline / kTime)); }
    float side() const { return arena / 2 - kMargin; }  // half of that of the square where one begins or should go
  };

  static constexpr float kGravity = 9.81F, kMass = 1, kInertia = 0.04F, kArm = 0.25F, kMargin = 1.5F;
  static constexpr float kHover = kMass * kGravity / 2;   // thrust of each rotor; the highest is twice that
  static constexpr float kRadius = 0.25F, kReach = 0.4F;  // of a quadrotor; of a waypoint
  static constexpr float kNearest = 2, kFarthest = 6;     // of the next waypoint
  static constexpr float kReward = 2, kCrash = 20;
  static constexpr float kCosts[5] = {1, 0.2F, 0.5F, 0.1F, 0.05F};  // of place, velocity, angle, its rate, thrusts

  static constexpr PictureSize kPicture{400, 426};

  struct Drone {
    float x, y, angle, vx, vy, rate;
    float goal_x, goal_y;
    int steps_left;              // until the waypoint is late
    int reached, late, crashes;  // waypoints so far: each ends in one of them
    int crashed;                 // in this step: it begins anew
    float cost;
  };
  Drone drones[kMaxAgents];
  int step_count;

  static Spec spec(const Params& params) {
    return {.observation_shape = {10 + 4 * kNeighbours},
            .action = ActionSpec::continuous({-1, -1}, {1, 1}),
            .num_agents = params.agents,
            .metrics = {"in_time", "crashed", "cost"},  // shares of the waypoints; per second
            .observation_low = -5,
            .observation_high = 5,
            .picture = kPicture};
  }

  void reset(const Params& params, Rng& rng) {
    step_count = 0;
    for (std::size_t i = 0; i < params.count(); ++i) {
      drones[i] = {};
      place(params, i, i, rng);
    }
  }

  // Actions: thrusts of the left and the right rotor, relative to hovering: -1 is none, 1 is twice as much.
  void step(const Params& params, std::span<const float> actions, std::span<StepResult> results, Rng& rng) {
    ++step_count;
    for (std::size_t i = 0; i < params.count(); ++i) {
      const float before = distance(drones[i]);
      fly(drones[i], kHover * actions[2 * i], kHover * actions[2 * i + 1]);
      results[i].reward = before - distance(drones[i]);
      results[i].truncated = step_count >= params.max_steps;
    }
    find_crashes(params);
    for (std::size_t i = 0; i < params.count(); ++i) {
      Drone& drone = drones[i];
      --drone.steps_left;
      const bool reached = !drone.crashed && distance(drone) < kReach;
      if (drone.crashed) {
        ++drone.crashes;
        results[i].reward = -kCrash;
        place(params, i, params.count(), rng);
      } else if (reached || drone.steps_left <= 0) {
        ++(reached ? drone.reached : drone.late);
        if (reached) results[i].reward += kReward;
        draw_goal(params, drone, rng);
      }
    }
  }

  // {goal from here (2), velocity (2), sine and cosine of the angle, its rate, time left, place in the arena (2)}, and
  // of each of the nearest neighbours {place (2) and velocity (2) from here, the nearer the larger}, 0 if there is
  // none.
  void observe(const Params& params, std::span<float> out) const {
    auto next = out.begin();
    const auto put = [&next](auto... values) { ((*next++ = std::clamp(values, -5.0F, 5.0F)), ...); };
    for (std::size_t i = 0; i < params.count(); ++i) {
      const Drone& drone = drones[i];
      put((drone.goal_x - drone.x) / 2, (drone.goal_y - drone.y) / 2, drone.vx / 2, drone.vy / 2);
      put(std::sin(drone.angle), std::cos(drone.angle), drone.rate / 2);
      put(static_cast<float>(drone.steps_left) / static_cast<float>(params.deadline_steps()));
      put(drone.x / params.arena, drone.y / params.arena);
      for (const Drone* other : neighbours(params, i)) {
        if (!other) other = &drone;
        const float dx = other->x - drone.x, dy = other->y - drone.y, scale = 2 / (0.5F + std::sqrt(squared(dx, dy)));
        put(dx * scale, dy * scale, (other->vx - drone.vx) / 2 * scale, (other->vy - drone.vy) / 2 * scale);
      }
    }
  }

  void metrics(const Params& params, std::span<float> out) const {
    for (std::size_t i = 0; i < params.count(); ++i) {
      const Drone& drone = drones[i];
      const auto waypoints = static_cast<float>(std::max(1, drone.reached + drone.late + drone.crashes));
      out[3 * i] = static_cast<float>(drone.reached) / waypoints;
      out[3 * i + 1] = static_cast<float>(drone.crashes) / waypoints;
      out[3 * i + 2] = drone.cost / static_cast<float>(step_count);
    }
  }

  void render(const Params& params, Canvas& canvas) const {
    int reached = 0, ended = 0, crashes = 0;
    for (std::size_t i = 0; i < params.count(); ++i) {
      reached += drones[i].reached;
      crashes += drones[i].crashes;
      ended += drones[i].reached + drones[i].late + drones[i].crashes;
    }
    draw_header(canvas, Label("IN TIME ", reached, " OF ", ended), Label("CRASHES ", crashes));
    const Box sky = below_header(kPicture.width, kPicture.height);
    canvas.rect(sky, palette::kWall);
    canvas.rect(sky.inset(2), palette::kPanel);
    const float metre = sky.width / params.arena, arm = 1.6F * kArm * metre;  // drawn larger than to scale
    const auto at = [&params](float x, float y) { return in_picture(params, x, y); };
    for (std::size_t i = 0; i < params.count(); ++i) {
      const Drone& drone = drones[i];
      const Color colour = palette::kSeries[i % palette::kSeries.size()];
      const Point here = at(drone.x, drone.y), goal = at(drone.goal_x, drone.goal_y);
      canvas.line(here, goal, 1, colour.faded(70));
      canvas.ring(goal, kReach * metre, 2, colour);
      if (drone.crashed) canvas.disc(here, 2 * arm, palette::kDanger.faded(120));
      const Pose pose(here, static_cast<double>(-drone.angle));
      canvas.line(pose(-arm, 0), pose(arm, 0), 3, colour);
      for (const float end : {-arm, arm}) {
        canvas.line(pose(end, 0), pose(end, -0.5F * arm), 1.5F, colour);
        canvas.line(pose(end - 0.6F * arm, -0.5F * arm), pose(end + 0.6F * arm, -0.5F * arm), 1.5F, palette::kText);
      }
    }
  }

  void places(const Params& params, std::span<Point> out) const {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = in_picture(params, drones[i].x, drones[i].y);
  }

 private:
  static Point in_picture(const Params& params, float x, float y) {
    const Box sky = below_header(kPicture.width, kPicture.height);
    const float metre = sky.width / params.arena;
    return {sky.center().x + x * metre, sky.center().y - y * metre};
  }

  static float distance(const Drone& drone) {
    return std::sqrt(squared(drone.goal_x - drone.x, drone.goal_y - drone.y));
  }
  static float squared(float x, float y) { return x * x + y * y; }
  static float squared_distance(const Drone& a, const Drone& b) { return squared(a.x - b.x, a.y - b.y); }

  // Thrusts beyond hovering, in N; semi-implicit Euler.
  static void fly(Drone& drone, float left, float right) {
    drone.cost += kCosts[0] * squared(drone.goal_x - drone.x, drone.goal_y - drone.y) +
                  kCosts[1] * squared(drone.vx, drone.vy) + kCosts[2] * drone.angle * drone.angle +
                  kCosts[3] * drone.rate * drone.rate + kCosts[4] * squared(left, right);
    const float thrust = (2 * kHover + left + right) / kMass, turn = kArm * (right - left) / kInertia;
    for (int k = 0; k < kSubsteps; ++k) {
      drone.vx -= kSubstep * thrust * std::sin(drone.angle);
      drone.vy += kSubstep * (thrust * std::cos(drone.angle) - kGravity);
      drone.rate += kSubstep * turn;
      drone.x += kSubstep * drone.vx;
      drone.y += kSubstep * drone.vy;
      drone.angle += kSubstep * drone.rate;
    }
  }

  void find_crashes(const Params& params) {
    const float wall = params.arena / 2 - kRadius;
    for (std::size_t i = 0; i < params.count(); ++i) {
      Drone& drone = drones[i];
      drone.crashed = std::max(std::abs(drone.x), std::abs(drone.y)) > wall ||
                      std::abs(drone.angle) > std::numbers::pi_v<float> / 2;
      for (std::size_t j = 0; j < i; ++j) {
        if (squared_distance(drone, drones[j]) < 4 * kRadius * kRadius) drone.crashed = drones[j].crashed = 1;
      }
    }
  }

  // The nearest first; none where there are fewer.
  std::array<const Drone*, kNeighbours> neighbours(const Params& params, std::size_t of) const {
    std::array<const Drone*, kNeighbours> nearest{};
    std::array<float, kNeighbours> how_near;
    how_near.fill(std::numeric_limits<float>::max());
    for (std::size_t i = 0; i < params.count(); ++i) {
      const float distance = squared_distance(drones[i], drones[of]);
      if (i == of || distance >= how_near.back()) continue;
      std::size_t k = kNeighbours - 1;
      for (; k > 0 && distance < how_near[k - 1]; --k) {
        nearest[k] = nearest[k - 1];
        how_near[k] = how_near[k - 1];
      }
      nearest[k] = &drones[i];
      how_near[k] = distance;
    }
    return nearest;
  }

  // At rest somewhere, if possible away from the first `others` drones.
  void place(const Params& params, std::size_t i, std::size_t others, Rng& rng) {
    Drone& drone = drones[i];
    bool free = false;
    for (int attempt = 0; attempt < 10 && !free; ++attempt) {
      drone.x = rng.uniform(-params.side(), params.side());
      drone.y = rng.uniform(-params.side(), params.side());
      free = true;
      for (std::size_t j = 0; j < others && free; ++j) {
        free = j == i || squared_distance(drone, drones[j]) > kMargin * kMargin;
      }
    }
    drone.angle = drone.vx = drone.vy = drone.rate = 0;
    draw_goal(params, drone, rng);
  }

  // In a ring around the drone, inside the arena.
  static void draw_goal(const Params& params, Drone& drone, Rng& rng) {
    drone.steps_left = params.deadline_steps();
    for (int attempt = 0; attempt < 30; ++attempt) {
      const float x = drone.x + rng.uniform(-kFarthest, kFarthest), y = drone.y + rng.uniform(-kFarthest, kFarthest);
      drone.goal_x = std::clamp(x, -params.side(), params.side());
      drone.goal_y = std::clamp(y, -params.side(), params.side());
      const float far = distance(drone);
      if (x == drone.goal_x && y == drone.goal_y && far > kNearest && far < kFarthest) return;
    }
  }
};

REGISTER_ENV(Quadrotors, "quadrotors");

}  // namespace dist_trainer
