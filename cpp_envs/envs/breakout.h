// Breakout: a paddle returns a ball that knocks bricks out of a wall, after the arcade game of 1976. Six rows of 18
// bricks are worth 7, 7, 4, 4, 1, 1 from the top: 432 points. Two walls in all, so 864 points win the game.
// Good: mean score >= 400; perfect: 864. A game that never touches the ball scores 0.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "../registry.h"

namespace dist_trainer {

struct Breakout {
  using Observation = float;
  using Action = std::int32_t;

  struct Params {
    int lives = 5;
    int frame_skip = 4;
    int max_steps = 20'000;
    void visit(auto&& field) {
      field("lives", lives, 1, 10, "balls of an episode");
      field("frame_skip", frame_skip, 1, 16, "physics frames of a step");
      field("max_steps", max_steps, 1, 1'000'000, "steps until the episode is truncated");
    }
  };
  enum : std::int32_t { kStay, kLeft, kRight };

  // The field: x to the right, y downwards, the ceiling at 0, the paddle's surface at kHeight. The ball is a point.
  // It moves less than a brick's height per frame, hence cannot pass through one; brick sides are powers of two, hence
  // the brick under a point is computed exactly. The ball's sideways speed, at most kSteepest of its speed, stays below
  // the paddle's: a player who follows the ball reaches it.
  static constexpr int kRows = 6, kColumns = 18, kBricks = kRows * kColumns, kWalls = 2;
  static constexpr std::array<int, kRows> kValues{7, 7, 4, 4, 1, 1};
  static constexpr int kFeatures = 11;  // entries of the observation before the bricks
  static constexpr float kBrickWidth = 8, kBrickHeight = 4;
  static constexpr float kWidth = kColumns * kBrickWidth, kHeight = 120;
  static constexpr float kWallTop = 20, kWallBottom = kWallTop + kRows * kBrickHeight;
  static constexpr float kPaddleHalf = 12, kBallRadius = 1, kPaddleSpeed = 3;
  static constexpr float kSlowest = 2.0F, kSlow = 2.5F, kFast = 3.0F, kFastest = 3.5F, kSteepest = 0.8F;
  static constexpr int kHitsToSlow = 4, kHitsToFast = 12;  // paddle hits since the serve
  static_assert(kFastest < kBrickHeight && kFastest < kWallTop && kFastest * kSteepest < kPaddleSpeed);

  float paddle, x, y, vx, vy;
  std::int32_t lives, bricks_left, walls_cleared, hits, score, steps;
  bool reached_top;  // since the serve, the ball has hit a brick of the two upper rows
  std::array<std::uint8_t, kBricks> bricks;

  static Spec spec(const Params&) {
    return {.observation_shape = {kFeatures + kBricks},
            .action = ActionSpec::discrete(3),
            .num_agents = 1,
            .metrics = {"score", "walls"},
            .picture = {304, 288}};
  }

  void reset(const Params& params, Rng& rng) {
    paddle = kWidth / 2;
    lives = params.lives;
    walls_cleared = score = steps = 0;
    build_wall();
    serve(rng);
  }

  StepResult step(const Params& params, std::int32_t action, Rng& rng) {
    const float push = action == kLeft ? -kPaddleSpeed : action == kRight ? kPaddleSpeed : 0.0F;
    const int score_before = score;
    for (int frame = 0; frame < params.frame_skip && !over(); ++frame) {
      paddle = std::clamp(paddle + push, kPaddleHalf, kWidth - kPaddleHalf);
      move_ball(rng);
    }
    ++steps;
    return {.reward = static_cast<float>(score - score_before),
            .terminated = over(),
            .truncated = !over() && steps >= params.max_steps};
  }

  void observe(const Params& params, std::span<float> out) const {
    out[0] = paddle * (2 / kWidth) - 1;
    out[1] = x * (2 / kWidth) - 1;
    out[2] = y * (2 / kHeight) - 1;
    out[3] = vx * (1 / kFastest);
    out[4] = vy * (1 / kFastest);
    out[5] = std::clamp((x - paddle) * (0.5F / kPaddleHalf), -1.0F, 1.0F);  // finer, where it matters
    out[6] = static_cast<float>(lives) / static_cast<float>(params.lives);
    out[7] = static_cast<float>(bricks_left) * (1.0F / kBricks);
    out[8] = static_cast<float>(walls_cleared) * (1.0F / kWalls);
    out[9] = static_cast<float>(std::min(hits, kHitsToFast)) * (1.0F / kHitsToFast);
    out[10] = static_cast<float>(reached_top);
    for (std::size_t i = 0; i < kBricks; ++i) out[kFeatures + i] = static_cast<float>(bricks[i]);
  }

  void metrics(const Params&, std::span<float> out) const {
    out[0] = static_cast<float>(score);
    out[1] = static_cast<float>(walls_cleared);
  }

  void render(const Params& params, Canvas& canvas) const {
    draw_header(canvas, Label("SCORE ", score), Label("WALL ", std::min(walls_cleared + 1, kWalls), "/", kWalls));
    constexpr float kScale = 2, kMargin = 8, kTop = 34;
    const auto at = [](float across, float down) { return Point{kMargin + kScale * across, kTop + kScale * down}; };
    canvas.rect({kMargin, kTop - 4, kScale * kWidth, kScale * kHeight + 4}, palette::kPanel);
    for (int brick = 0; brick < kBricks; ++brick) {
      if (bricks[static_cast<std::size_t>(brick)] == 0) continue;
      const int row = brick / kColumns, column = brick % kColumns;
      const Point corner =
          at(static_cast<float>(column) * kBrickWidth, kWallTop + static_cast<float>(row) * kBrickHeight);
      const Box box{corner.x, corner.y, kScale * kBrickWidth, kScale * kBrickHeight};
      canvas.rect(box.inset(0.5F), palette::kSeries[static_cast<std::size_t>(row)], 1.5F);
    }
    for (int left = 1; left < params.lives; ++left) {  // the balls after this one
      const Color color = left < lives ? palette::kGold : palette::kGrid;
      canvas.disc({static_cast<float>(canvas.width()) / 2 + 10 * static_cast<float>(left) -
                       5 * static_cast<float>(params.lives),
                   kHeaderHeight / 2},
                  3.5F, color);
    }
    const Point middle = at(paddle, kHeight);
    canvas.rect({middle.x - kScale * kPaddleHalf, middle.y, 2 * kScale * kPaddleHalf, 8}, palette::kAgent, 4);
    for (int shade = 4; shade >= 0; --shade) {  // where it comes from, or would, had it not turned
      const auto back = static_cast<float>(shade) * 1.5F;
      const Point ball = at(std::clamp(x - back * vx, 0.0F, kWidth), std::clamp(y - back * vy, 0.0F, kHeight));
      canvas.disc(ball, shade == 0 ? 4.5F : 3.5F, palette::kGold.faded(shade == 0 ? 255 : 70 - 14 * shade));
    }
  }

 private:
  bool over() const { return lives == 0 || walls_cleared == kWalls; }

  void build_wall() {
    bricks.fill(1);
    bricks_left = kBricks;
  }

  // The ball comes down from under the middle of the wall, slowly enough for the paddle to arrive from either side.
  void serve(Rng& rng) {
    hits = 0;
    reached_top = false;
    x = rng.uniform(kWidth / 3, kWidth * 2 / 3);
    y = kWallBottom;
    aim(rng.uniform(-1.0F, 1.0F), kSlowest);
  }

  // Downwards, `sideways` in [-1, 1] from the far left to the far right.
  void aim(float sideways, float speed) {
    vx = sideways * kSteepest * speed;
    vy = std::sqrt(speed * speed - vx * vx);
  }

  // One frame: sideways, then up or down. Where a move would enter a brick, the brick goes and the move is not made.
  void move_ball(Rng& rng) {
    float next_x = x + vx;
    if (next_x < 0 || next_x > kWidth) {
      next_x = next_x < 0 ? -next_x : 2 * kWidth - next_x;
      vx = -vx;
    }
    if (knock_out(next_x, y)) {
      vx = -vx;
    } else {
      x = next_x;
    }
    const float next_y = y + vy;
    if (next_y >= kHeight) {
      meet_paddle(rng);
    } else if (next_y < 0) {
      y = -next_y;
      vy = -vy;
    } else if (knock_out(x, next_y)) {
      vy = -vy;
    } else {
      y = next_y;
    }
  }

  bool knock_out(float at_x, float at_y) {
    if (at_y < kWallTop || at_y >= kWallBottom) return false;
    const int row = static_cast<int>((at_y - kWallTop) * (1 / kBrickHeight));
    const int column = std::min(static_cast<int>(at_x * (1 / kBrickWidth)), kColumns - 1);  // kWidth is in the last
    std::uint8_t& brick = bricks[static_cast<std::size_t>(row * kColumns + column)];
    if (brick == 0) return false;
    brick = 0;
    score += kValues[static_cast<std::size_t>(row)];
    reached_top |= row < 2;
    if (--bricks_left == 0) ++walls_cleared;
    return true;
  }

  // Where the ball meets the paddle sets its direction. A little chance in it breaks cycles that hit no brick.
  void meet_paddle(Rng& rng) {
    const float offset = x - paddle;
    if (std::abs(offset) > kPaddleHalf + kBallRadius) {
      if (bricks_left == 0) build_wall();
      if (--lives > 0) serve(rng);
      return;
    }
    ++hits;
    const float speed = reached_top ? kFastest : hits >= kHitsToFast ? kFast : hits >= kHitsToSlow ? kSlow : kSlowest;
    aim(std::clamp(offset / kPaddleHalf + rng.uniform(-0.1F, 0.1F), -1.0F, 1.0F), speed);
    vy = -vy;
    y = kHeight;
    if (bricks_left == 0) build_wall();  // not before: the ball might have been where the new bricks appear
  }
};

REGISTER_ENV(Breakout, "breakout");

}  // namespace dist_trainer
