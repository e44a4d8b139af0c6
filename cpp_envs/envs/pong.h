// Pong: two paddles and a ball, after the arcade game of 1972. The agent has the right paddle, a script the left one:
// as large, but slower, so that a steep ball gets past it. The first to 21 points wins; the return is the difference.
// Solved: mean return >= 20 of 21. Who never meets the ball loses by 21.
#pragma once

#include <algorithm>
#include <cmath>

#include "../picture.h"
#include "../registry.h"

namespace dist_trainer {

struct Pong {
  using Observation = float;
  using Action = std::int32_t;

  struct Params {
    int points = 21;
    float rival_speed = 0.9F;
    int frame_skip = 4;
    int max_steps = 10'000;
    void visit(auto&& field) {
      field("points", points, 1, 1000, "points that win the game");
      field("rival_speed", rival_speed, 0.0F, 3.0F, "of the left paddle, pixels per frame; the agent's is 2.5");
      field("frame_skip", frame_skip, 1, 16, "physics frames of a step");
      field("max_steps", max_steps, 1, 1'000'000, "steps until the episode is truncated");
    }
  };
  enum : std::int32_t { kStay, kUp, kDown };

  // The field: x to the right from the rival's paddle to the agent's, y downwards. The ball is a point. Where it meets
  // a paddle sets its direction, at most kSteepest of its speed up or down: less than the agent's paddle makes.
  static constexpr float kWidth = 160, kHeight = 120, kPaddleHalf = 12, kBallRadius = 1, kPaddleSpeed = 2.5F;
  static constexpr float kSlowest = 2.0F, kFaster = 0.125F, kFastest = 3.0F, kSteepest = 0.8F;
  static constexpr float kRivalAim = 0.9F;  // the rival meets the ball within this part of its half paddle, by chance
  static_assert(kFastest * kSteepest < kPaddleSpeed);

  float paddle, rival, rival_offset, x, y, vx, vy;
  std::int32_t won, lost, hits, steps;  // points for and against; returns since the serve, by both; of this episode
  std::int32_t returns;                 // by the agent, of the episode

  static Spec spec(const Params&) {
    return {.observation_shape = {10},
            .action = ActionSpec::discrete(3),
            .num_agents = 1,
            .metrics = {"win", "hits_per_point"},
            .observation_low = -1,
            .observation_high = 1,
            .picture = {320, 240}};
  }

  void reset(const Params&, Rng& rng) {
    paddle = rival = kHeight / 2;
    won = lost = steps = returns = 0;
    serve(rng);
  }

  StepResult step(const Params& params, std::int32_t action, Rng& rng) {
    const float push = action == kUp ? -kPaddleSpeed : action == kDown ? kPaddleSpeed : 0.0F;
    const int lead = won - lost;
    for (int frame = 0; frame < params.frame_skip && !over(params); ++frame) {
      paddle = within_field(paddle + push);
      move_rival(params.rival_speed);
      move_ball(rng);
    }
    ++steps;
    return {.reward = static_cast<float>(won - lost - lead),
            .terminated = over(params),
            .truncated = !over(params) && steps >= params.max_steps};
  }

  void observe(const Params& params, std::span<float> out) const {
    out[0] = paddle * (2 / kHeight) - 1;
    out[1] = rival * (2 / kHeight) - 1;
    out[2] = x * (2 / kWidth) - 1;
    out[3] = y * (2 / kHeight) - 1;
    out[4] = vx * (1 / kFastest);
    out[5] = vy * (1 / kFastest);
    out[6] = std::clamp((y - paddle) * (0.5F / kPaddleHalf), -1.0F, 1.0F);  // finer, where it matters
    out[7] = (speed() - kSlowest) * (1 / (kFastest - kSlowest));
    out[8] = static_cast<float>(won) / static_cast<float>(params.points);
    out[9] = static_cast<float>(lost) / static_cast<float>(params.points);
  }

  void metrics(const Params& params, std::span<float> out) const {
    out[0] = static_cast<float>(won == params.points);
    out[1] = static_cast<float>(returns) / static_cast<float>(std::max(won + lost, 1));
  }

  void render(const Params&, Canvas& canvas) const {
    draw_header(canvas, Label("RIVAL ", lost), Label("AGENT ", won));
    constexpr float kScale = 1.7F, kLeft = 24, kTop = 30;
    const auto at = [](float across, float down) { return Point{kLeft + kScale * across, kTop + kScale * down}; };
    canvas.rect({kLeft - 14, kTop - 2, kScale * kWidth + 28, kScale * kHeight + 4}, palette::kPanel, 4);
    for (float dash = 3; dash < kHeight; dash += 12) {
      canvas.line(at(kWidth / 2, dash), at(kWidth / 2, dash + 5), 3, palette::kGrid);
    }
    const auto draw_paddle = [&](float edge, float middle, Color color) {
      const Point top = at(edge, middle - kPaddleHalf);
      canvas.rect({top.x, top.y, 8, 2 * kScale * kPaddleHalf}, color, 3);
    };
    draw_paddle(-8 / kScale, rival, palette::kViolet);
    draw_paddle(kWidth, paddle, palette::kAgent);
    for (int shade = 4; shade >= 0; --shade) {  // where it comes from, or would, had it not turned
      const auto back = static_cast<float>(shade) * 2.5F;
      const Point ball = at(std::clamp(x - back * vx, 0.0F, kWidth), std::clamp(y - back * vy, 0.0F, kHeight));
      canvas.disc(ball, shade == 0 ? 5.0F : 4.0F, palette::kGold.faded(shade == 0 ? 255 : 70 - 14 * shade));
    }
  }

 private:
  static float within_field(float middle) { return std::clamp(middle, kPaddleHalf, kHeight - kPaddleHalf); }
  bool over(const Params& params) const { return won == params.points || lost == params.points; }
  float speed() const { return std::min(kSlowest + kFaster * static_cast<float>(hits), kFastest); }

  // From the middle, to either side.
  void serve(Rng& rng) {
    hits = 0;
    x = kWidth / 2;
    y = rng.uniform(kHeight / 3, kHeight * 2 / 3);
    const bool to_agent = rng.chance(0.5F);
    aim(rng.uniform(-0.5F, 0.5F), to_agent);
    choose_rival_offset(rng);
  }

  // `upright` in [-1, 1] from as far up as possible to as far down.
  void aim(float upright, bool to_agent) {
    vy = upright * kSteepest * speed();
    vx = std::sqrt(speed() * speed() - vy * vy);
    if (!to_agent) vx = -vx;
  }

  void choose_rival_offset(Rng& rng) { rival_offset = rng.uniform(-kRivalAim, kRivalAim) * kPaddleHalf; }

  // It follows a ball that comes, as it is now, without regard to where it will bounce; else it goes to the middle.
  void move_rival(float most) {
    const float target = vx < 0 ? y - rival_offset : kHeight / 2;
    rival = within_field(rival + std::clamp(target - rival, -most, most));
  }

  void move_ball(Rng& rng) {
    y += vy;
    if (y < 0 || y > kHeight) {
      y = y < 0 ? -y : 2 * kHeight - y;
      vy = -vy;
    }
    x += vx;
    if (x >= kWidth) {
      if (!meet(paddle, false)) return score(lost, rng);
      ++returns;
      choose_rival_offset(rng);
    } else if (x <= 0 && !meet(rival, true)) {
      score(won, rng);
    }
  }

  bool meet(float middle, bool to_agent) {
    const float offset = y - middle;
    if (std::abs(offset) > kPaddleHalf + kBallRadius) return false;
    ++hits;
    x = to_agent ? 0.0F : kWidth;
    aim(std::clamp(offset / kPaddleHalf, -1.0F, 1.0F), to_agent);
    return true;
  }

  void score(std::int32_t& points, Rng& rng) {
    ++points;
    serve(rng);
  }
};

REGISTER_ENV(Pong, "pong");

}  // namespace dist_trainer
