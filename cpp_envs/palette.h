// The colours of all pictures, so that the environments look like one family.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace dist_trainer {

struct Color {
  std::uint8_t red, green, blue, alpha = 255;  // alpha: 0 shows nothing, 255 hides what is below
  constexpr Color faded(int to_alpha) const { return {red, green, blue, static_cast<std::uint8_t>(to_alpha)}; }
  constexpr bool operator==(const Color&) const = default;
};

// From a to b as `part` goes from 0 to 1; beyond, or for NaN, the nearer end or a.
constexpr Color mix(Color a, Color b, float part) {
  const int weight = part > 0 ? part < 1 ? static_cast<int>(part * 256) : 256 : 0;
  const auto channel = [weight](int from, int to) {
    return static_cast<std::uint8_t>(from + (to - from) * weight / 256);
  };
  return {channel(a.red, b.red), channel(a.green, b.green), channel(a.blue, b.blue), channel(a.alpha, b.alpha)};
}

namespace palette {

inline constexpr Color kBackground{18, 24, 38};  // what a picture is filled with before render()
inline constexpr Color kPanel{30, 39, 58};       // the board, the track, whatever is played on
inline constexpr Color kGrid{45, 57, 81};        // lines on a panel, empty cells
inline constexpr Color kWall{92, 108, 138};      // what is in the way
inline constexpr Color kFaint{137, 151, 178};    // text and marks of less importance
inline constexpr Color kText{233, 238, 247};
inline constexpr Color kAgent{76, 201, 240};  // who acts
inline constexpr Color kGoal{92, 214, 134};   // where it should go, what it should have
inline constexpr Color kDanger{242, 95, 92};  // what ends or costs
inline constexpr Color kGold{255, 209, 102};  // what is found, collected or given: food, keys, a ball, a cue
inline constexpr Color kOrange{247, 148, 77};
inline constexpr Color kViolet{166, 133, 245};  // another player, another kind

// To tell many of a kind apart: bricks, pieces, tiles, agents. kSeries[i % kSeries.size()].
inline constexpr std::array<Color, 8> kSeries{
    kDanger, kOrange, kGold, kGoal, Color{61, 178, 168}, kAgent, Color{92, 128, 240}, kViolet,
};

}  // namespace palette
}  // namespace dist_trainer
