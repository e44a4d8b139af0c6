// The cheap checks of what environments give and are asked for, and the errors of a step.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "env.h"
#include "largest.h"

namespace dist_trainer {

// The caller's mistake.
struct InvalidAction : std::out_of_range {
  using std::out_of_range::out_of_range;
};

// The environment's: what it gives cannot be.
struct EnvError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", value);
  return text;
}

// Every entry must be from the spec's observation_low to its observation_high.
template <class T>
class ObservationCheck {
 public:
  explicit ObservationCheck(const Spec& spec)
      : low_(bound(spec.observation_low)),
        high_(bound(spec.observation_high)),
        any_(low_ == std::numeric_limits<T>::lowest() && high_ == std::numeric_limits<T>::max()) {}

  bool all_good(std::span<const T> entries) const {
    if constexpr (std::is_same_v<T, float>) {
      // Nearly always enough: a look at the largest. Only -0.0, or a range that is not like -x to x, needs the second.
      if (low_ == 0 && largest_bits<false>(entries) <= std::bit_cast<std::uint32_t>(high_)) return true;
      if (low_ < 0 && high_ >= 0 &&
          largest_bits<true>(entries) <= std::bit_cast<std::uint32_t>(std::min(-low_, high_)) << 1)
        return true;
    } else if (any_) {
      return true;
    }
    int bad = 0;
    for (const T entry : entries) bad |= static_cast<int>(!is_good(entry));
    return bad == 0;
  }

  // Of entries that are not all good.
  std::size_t first_bad(std::span<const T> entries) const {
    std::size_t i = 0;
    while (is_good(entries[i])) ++i;
    return i;
  }

  // What is wrong with the observations of an environment's agents.
  std::string complaint(std::span<const T> entries, std::size_t agents) const {
    const std::size_t i = first_bad(entries), size = entries.size() / agents;
    return "entry " + std::to_string(i % size) + " of the observation of agent " + std::to_string(i / size) + " is " +
           number(entries[i]) + ", must be " + (any_ ? "finite" : "from " + number(low_) + " to " + number(high_));
  }

 private:
  static T bound(float value) {
    if constexpr (std::is_same_v<T, float>) return value;
    return static_cast<T>(std::clamp(value, 0.0F, 255.0F));
  }
  // False for what is not a number, too. No branch: the loop over it becomes vector code.
  bool is_good(T entry) const {
    return static_cast<bool>(static_cast<int>(entry >= low_) & static_cast<int>(entry <= high_));
  }

  T low_, high_;
  bool any_;  // any number is good
};

// Whether an environment has a render() and says how large its picture is, or neither.
inline void check_picture(const std::string& name, PictureSize picture, bool has_render, bool has_places) {
  constexpr int kMaxSide = 4096;
  const auto [width, height] = picture;
  if (has_render != (width != 0 || height != 0)) {
    throw std::logic_error(name + ": render(const Params&, Canvas&) const and spec()'s picture need each other");
  }
  if (has_places && !has_render) throw std::logic_error(name + ": places() are those in a picture; it has no render()");
  if (has_render && (std::min(width, height) < 1 || std::max(width, height) > kMaxSide)) {
    throw std::logic_error(name + ": its picture is " + std::to_string(width) + " x " + std::to_string(height) +
                           " pixels, each must be 1 to " + std::to_string(kMaxSide));
  }
}

// Whether environment `env` of a pool can be drawn.
inline void check_render(const std::string& name, PictureSize picture, int env, int num_envs) {
  if (picture.width == 0) throw std::invalid_argument("env.name=" + name + ": has no render(), and so no picture");
  if (env < 0 || env >= num_envs) {
    throw std::out_of_range("render(" + std::to_string(env) + "): the environments of this pool are 0 to " +
                            std::to_string(num_envs - 1));
  }
}

}  // namespace dist_trainer
