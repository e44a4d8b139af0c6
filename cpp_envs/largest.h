// The largest of many numbers by their bits, in wide registers where the processor has them.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace dist_trainer {

// Bits of a float that is not negative are in the order of the numbers; infinity and what is none come last. A negative
// one is above them all, unless its sign is shifted out (kMagnitude).
template <bool kMagnitude>
[[gnu::always_inline]] inline std::uint32_t largest_bits_of(std::span<const float> values) {
  constexpr std::size_t kLanes = 32;  // several registers: one would wait for its own last result
  std::uint32_t lanes[kLanes] = {};
  const auto bits = [values](std::size_t i) {
    return std::bit_cast<std::uint32_t>(values[i]) << static_cast<int>(kMagnitude);
  };
  std::size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] = std::max(lanes[lane], bits(i + lane));
  }
  for (; i < values.size(); ++i) lanes[0] = std::max(lanes[0], bits(i));
  return *std::max_element(lanes, lanes + kLanes);
}

#if defined(__x86_64__)
// Compiled for processors that not everyone has, and called only where they are.
template <bool kMagnitude>
[[gnu::target("avx2")]] inline std::uint32_t largest_bits_avx2(std::span<const float> values) {
  return largest_bits_of<kMagnitude>(values);
}
#endif

template <bool kMagnitude>
std::uint32_t largest_bits(std::span<const float> values) {
#if defined(__x86_64__)
  static const bool wide = __builtin_cpu_supports("avx2") != 0;
  if (wide) return largest_bits_avx2<kMagnitude>(values);
#endif
  return largest_bits_of<kMagnitude>(values);
}

}  // namespace dist_trainer
