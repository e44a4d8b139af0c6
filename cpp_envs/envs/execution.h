// Optimal execution: sell a block of shares within a few days, as cheaply as the risk allows. The model, its parameters
// and its objective are those of Almgren and Chriss, "Optimal execution of portfolio transactions" (Journal of Risk 3,
// 2000, table 1): linear temporary and permanent impact, and a risk-averse seller who minimizes E[cost] + lambda
// Var[cost]. Of selling n_k shares in step k, which leaves x_k, that objective is the sum over k of
//
//   gamma x_k n_k + eta n_k^2 / tau + lambda sigma^2 tau x_k^2
//
// which is what the reward is made of. The volatility sigma is drawn anew for each episode and never shown: it must be
// inferred from the moves of the price, of which the seller sees some before the first sale. With sigma known, the best
// plan is a closed form, and its cost a lower bound. An episode's rewards sum to -(cost / cost of the closed form).
// Solved: mean cost <= 1.03 of the closed form's. The best plan that ignores the moves costs 1.16.
#pragma once

#include <algorithm>
#include <cmath>

#include "../registry.h"

namespace dist_trainer {

struct Execution {
  using Observation = float;
  using Action = float;

  struct Params {
    int steps = 20;
    int watch = 5;
    float risk_aversion = 1e-6F;
    float spread = 3;
    void visit(auto&& field) {
      field("steps", steps, 2, 1000, "sales, evenly over the days");
      field("watch", watch, 0, 1000, "steps before the first sale in which the price is only watched");
      field("risk_aversion", risk_aversion, 0.0F, 1e-4F, "lambda: weight of the variance, per dollar");
      field("spread", spread, 1.0F, 10.0F, "volatility lies between 1 / spread and spread times the usual one");
    }
    double tau() const { return kDays / steps; }
  };

  static constexpr int kMoves = 4;        // of the price that are seen in a step
  static constexpr float kMaxPace = 8;    // of a sale, in multiples of what would sell the rest evenly
  static constexpr float kMaxMove = 100;  // as it is shown
  static constexpr double kShares = 1e6, kDays = 5;
  static constexpr double kVolatility = 0.95;  // dollars per share and square root of a day, the usual one
  static constexpr double kPermanent = 2.5e-7, kTemporary = 2.5e-6;  // gamma; eta (per share and day)

  double volatility, best_cost;  // hidden
  double left, cost;             // shares; so far
  float moves[kMoves];           // of the price in the last step, in units of their usual standard deviation
  int step_count;

  static Spec spec(const Params&) {
    return {.observation_shape = {kMoves + 3},
            .action = ActionSpec::continuous({0}, {kMaxPace}),
            .num_agents = 1,
            .metrics = {},
            .observation_low = -kMaxMove,
            .observation_high = kMaxMove,
            .picture = {320, 240}};
  }

  void reset(const Params& params, Rng& rng) {
    const double log_spread = std::log(static_cast<double>(params.spread));
    volatility = kVolatility * std::exp(log_spread * (2 * static_cast<double>(rng.uniform()) - 1));
    best_cost = closed_form_cost(params, volatility);
    left = kShares;
    cost = 0;
    step_count = 0;
    move_price(params, 0, rng);
  }

  // The action is the pace of the sale: 1 sells the rest evenly over the steps that are left. The last step sells all.
  StepResult step(const Params& params, std::span<const float> action, Rng& rng) {
    const int steps_left = params.watch + params.steps - step_count;
    double sold = 0, paid = 0;
    if (step_count >= params.watch) {
      const double share = static_cast<double>(action[0]) / steps_left;
      sold = steps_left == 1 ? left : left * std::min(1.0, share);
      left -= sold;
      paid = step_cost(params, volatility, sold, left);
    }
    cost += paid;
    ++step_count;
    move_price(params, sold, rng);
    return {.reward = static_cast<float>(-paid / best_cost), .terminated = steps_left == 1};
  }

  // {moves of the price, steps until the first sale, until the last one, shares left}
  void observe(const Params& params, std::span<float> out) const {
    std::ranges::copy(moves, out.begin());
    out[kMoves] = static_cast<float>(std::max(0, params.watch - step_count)) / static_cast<float>(params.watch + 1);
    out[kMoves + 1] = static_cast<float>(params.watch + params.steps - step_count) / static_cast<float>(params.steps);
    out[kMoves + 2] = static_cast<float>(left / kShares);
  }

  // What selling `sold` shares in one step adds to the objective if it leaves `rest`, in dollars.
  static double step_cost(const Params& params, double sigma, double sold, double rest) {
    const double risk = static_cast<double>(params.risk_aversion) * sigma * sigma * params.tau();
    return kPermanent * rest * sold + kTemporary / params.tau() * sold * sold + risk * rest * rest;
  }

  // Shares after k sales of the best plan if sigma is known: X sinh(kappa (T - t_k)) / sinh(kappa T), equations 16
  // to 18.
  static double kept_by_closed_form(const Params& params, double urgency, int k) {
    return kShares * sinh_ratio(urgency, params.steps - k, params.steps);
  }

  // The plan's urgency.
  static double kappa_tau(const Params& params, double sigma) {
    const double tau = params.tau(), impact = kTemporary - kPermanent * tau / 2;
    const double squared = static_cast<double>(params.risk_aversion) * sigma * sigma / impact;  // kappa~ squared
    return std::acosh(1 + squared * tau * tau / 2);
  }

  static double closed_form_cost(const Params& params, double sigma) {
    const double urgency = kappa_tau(params, sigma);
    double sum = 0, rest = kShares;
    for (int k = 1; k <= params.steps; ++k) {
      const double next = kept_by_closed_form(params, urgency, k);
      sum += step_cost(params, sigma, rest - next, next);
      rest = next;
    }
    return sum;
  }

  // The shares over time: what the closed form would keep, what an even sale would, and what is kept. The last moves of
  // the price, and the hidden volatility.
  void render(const Params& params, Canvas& canvas) const {
    draw_header(canvas, Label("COST ", Decimal{cost / best_cost, 2}), Label("STEP ", step_count));
    const Box chart{16, 44, 200, 180};
    const auto at = [&](double step, double shares) {
      const auto x = static_cast<float>(step / (params.watch + params.steps)), y = static_cast<float>(shares / kShares);
      return Point{chart.x + chart.width * x, chart.y + chart.height * (1 - y)};
    };
    canvas.rect(chart.inset(-6), palette::kPanel, 6);
    const Point first = at(params.watch, kShares), last = at(params.watch + params.steps, 0),
                now = at(step_count, left);
    canvas.rect({chart.x, chart.y, first.x - chart.x, chart.height}, palette::kGrid.faded(120));
    canvas.line(first, last, 1.5F, palette::kWall);
    const double urgency = kappa_tau(params, volatility);
    const int stride = std::max(1, params.steps / 50);
    for (int k = stride; k <= params.steps; k += stride) {
      canvas.line(at(params.watch + k - stride, kept_by_closed_form(params, urgency, k - stride)),
                  at(params.watch + k, kept_by_closed_form(params, urgency, k)), 3, palette::kGoal);
    }
    canvas.rect({now.x - 3, now.y, 6, chart.y + chart.height - now.y}, palette::kAgent.faded(110));
    canvas.disc(now, 7, palette::kAgent);

    canvas.text({268, 44}, "MOVES", palette::kFaint, Align::kCenter);
    for (int i = 0; i < kMoves; ++i) {
      const float height = std::clamp(std::abs(moves[i]) * 16, 1.0F, 46.0F);
      const float top = moves[i] > 0 ? 114 - height : 114;
      canvas.rect({238 + 16 * static_cast<float>(i), top, 12, height},
                  moves[i] > 0 ? palette::kGoal : palette::kDanger);
    }
    canvas.text({268, 178}, "VOLATILITY", palette::kFaint, Align::kCenter, 1);
    const double part = 0.5 + std::log(volatility / kVolatility) / (2 * std::log(static_cast<double>(params.spread)));
    draw_gauge(canvas, {228, 192, 80, 10}, static_cast<float>(part), palette::kGold);
  }

 private:
  // sinh(m x) / sinh(n x) for x >= 0 and m <= n, also where both are infinite or 0.
  static double sinh_ratio(double x, int m, int n) {
    if (n * x < 1e-6) return static_cast<double>(m) / n;
    return std::exp((m - n) * x) * std::expm1(-2 * m * x) / std::expm1(-2 * n * x);
  }

  // Sales press the price for good; the moves of a step share that evenly.
  void move_price(const Params& params, double sold, Rng& rng) {
    const double unit = kVolatility * std::sqrt(params.tau() / kMoves);
    const double drift = -kPermanent * sold / kMoves;
    for (float& move : moves) {
      const double shown = (drift + unit / kVolatility * volatility * static_cast<double>(rng.normal())) / unit;
      move = std::clamp(static_cast<float>(shown), -kMaxMove, kMaxMove);
    }
  }
};

REGISTER_ENV(Execution, "execution");

}  // namespace dist_trainer
