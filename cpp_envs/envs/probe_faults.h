// Probe: CartPole that goes wrong at random moments, so that tests see what a run survives. When it does is keyed like
// everything else: it happens again in the same step of the same environment.
#pragma once

#include <cstddef>
#include <limits>
#include <stdexcept>

#include "cartpole.h"

namespace dist_trainer {

struct ProbeFaults : CartPole {
  struct Params : CartPole::Params {
    float segfault = 0, hang = 0, exception = 0, nan = 0, outlier = 0, nan_reward = 0, reset_segfault = 0;
    int leak = 0;
    void visit(auto&& field) {
      CartPole::Params::visit(field);
      field("segfault", segfault, 0.0F, 1.0F, "probability of a step that writes through a null pointer");
      field("hang", hang, 0.0F, 1.0F, "probability of a step that does not end");
      field("exception", exception, 0.0F, 1.0F, "probability of a step that throws");
      field("nan", nan, 0.0F, 1.0F, "probability of a step after which an entry of the observation is not a number");
      field("outlier", outlier, 0.0F, 1.0F, "probability of a step after which an entry is out of its range");
      field("nan_reward", nan_reward, 0.0F, 1.0F, "probability of a step whose reward is not a number");
      field("reset_segfault", reset_segfault, 0.0F, 1.0F, "probability of an episode that crashes when it begins");
      field("leak", leak, 0, 1'000'000'000, "bytes that a step allocates and never frees");
    }
  };

  bool shows_nan, shows_outlier;

  static Spec spec(const Params& params) {
    Spec spec = CartPole::spec(params);
    spec.observation_low = -100;
    spec.observation_high = 100;
    return spec;
  }

  void reset(const Params& params, Rng& rng) {
    CartPole::reset(params, rng);
    shows_nan = shows_outlier = false;
    if (happens(params.reset_segfault, rng)) crash();
  }

  StepResult step(const Params& params, std::int32_t action, Rng& rng) {
    StepResult result = CartPole::step(params, action, rng);
    if (happens(params.segfault, rng)) crash();
    if (happens(params.hang, rng)) hang_forever();
    if (happens(params.exception, rng)) throw std::runtime_error("the probe throws");
    shows_nan = happens(params.nan, rng);
    shows_outlier = happens(params.outlier, rng);
    if (happens(params.nan_reward, rng)) result.reward = std::numeric_limits<float>::quiet_NaN();
    if (params.leak > 0) leak_memory(static_cast<std::size_t>(params.leak));
    return result;
  }

  void observe(const Params& params, std::span<float> out) const {
    CartPole::observe(params, out);
    if (shows_nan) out[2] = std::numeric_limits<float>::quiet_NaN();
    if (shows_outlier) out[3] = 1000;
  }

 private:
  static bool happens(float probability, Rng& rng) { return probability > 0 && rng.chance(probability); }

  static void crash() {
    volatile int* volatile nowhere = nullptr;
    *nowhere = 1;
  }
  static void hang_forever() {
    for (volatile bool hangs = true; hangs;) relax();
  }
  static void leak_memory(std::size_t bytes) {
    volatile std::byte* lost = new std::byte[bytes];
    for (std::size_t i = 0; i < bytes; i += 4096) lost[i] = std::byte{1};
  }
};

REGISTER_ENV(ProbeFaults, "probe_faults");

}  // namespace dist_trainer
