// The keyed, counter-based random generator: every draw is a pure function of (seed, environment id, step, purpose).
//
// Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), written
// from the paper's equations and checked in tests/test_rng.py against the vectors published with Random123.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace dist_trainer {

using PhiloxCounter = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

inline constexpr std::uint64_t kPhiloxMultiplier0 = 0xD2511F53, kPhiloxMultiplier1 = 0xCD9E8D57;
inline constexpr std::uint32_t kPhiloxWeyl0 = 0x9E3779B9, kPhiloxWeyl1 = 0xBB67AE85;

inline PhiloxCounter philox4x32(PhiloxCounter counter, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = kPhiloxMultiplier0 * counter[0];
    const std::uint64_t product1 = kPhiloxMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key = {key[0] + kPhiloxWeyl0, key[1] + kPhiloxWeyl1};
  }
  return counter;
}

// Separate purposes draw from separate streams, so that an environment that asks for one more number in `step` shifts
// neither the next reset nor the action noise.
enum class Purpose : std::uint32_t { kReset = 0, kStep = 1, kNoise = 2 };

class Rng {
 public:
  // `step` counts the environment's steps since the run began, over all episodes; its low 56 bits are used.
  Rng(std::uint64_t seed, std::uint32_t env_id, std::uint64_t step, Purpose purpose)
      : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)},
        counter_{0, static_cast<std::uint32_t>(step),
                 (static_cast<std::uint32_t>(step >> 32) << 8) | static_cast<std::uint32_t>(purpose), env_id} {}

  std::uint32_t next() {
    if (used_ == 4) {
      block_ = philox4x32(counter_, key_);
      ++counter_[0];
      used_ = 0;
    }
    return block_[used_++];
  }

  // Strictly inside (0, 1), 23 bits: log(u), log(1 - u) and the inverse normal distribution stay finite.
  float uniform() { return (static_cast<float>(next() >> 9) + 0.5F) * 0x1p-23F; }
  float uniform(float low, float high) { return low + (high - low) * uniform(); }

  // Uniform integer in [0, bound), bound >= 1. Multiply-shift (Lemire, arXiv 1805.10941) without its rejection step:
  // the bias is below bound / 2^32.
  int below(int bound) {
    return static_cast<int>((static_cast<std::uint64_t>(next()) * static_cast<std::uint64_t>(bound)) >> 32);
  }

  bool chance(float probability) { return uniform() < probability; }

  // Standard normal (Box and Muller, 1958); its magnitude is at most sqrt(-2 log 2^-24) < 5.77.
  float normal() {
    const float radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(2 * std::numbers::pi_v<float> * uniform());
  }

 private:
  PhiloxKey key_;
  PhiloxCounter counter_;
  PhiloxCounter block_{};
  int used_ = 4;
};

}  // namespace dist_trainer
