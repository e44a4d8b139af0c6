// What pictures of environments have in common: numbers in text, a header, boards of cells, turned shapes.
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <string_view>

#include "canvas.h"

namespace dist_trainer {

// A number to be shown with so many digits after the point.
struct Decimal {
  double value;
  int places = 1;
};

// A line of text made of words and numbers, without the heap: Label("SCORE ", score), Label(Decimal{angle, 2}, " DEG").
// What does not fit into 63 characters is cut off.
class Label {
 public:
  template <class... Parts>
  explicit Label(const Parts&... parts) {
    (add(parts), ...);
  }
  operator std::string_view() const { return {text_.data(), size_}; }

 private:
  void add(std::string_view part) {
    const std::size_t size = std::min(part.size(), text_.size() - size_);
    std::memcpy(text_.data() + size_, part.data(), size);
    size_ += size;
  }
  void add(const char* part) { add(std::string_view(part)); }
  void add(std::int64_t number) {
    std::array<char, 24> digits;
    const char* end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
    add(std::string_view(digits.data(), static_cast<std::size_t>(end - digits.data())));
  }
  void add(int number) { add(std::int64_t{number}); }
  void add(const Decimal& number) {
    if (!(std::abs(number.value) < 1e12)) return add("?");  // or not a number
    std::int64_t unit = 1;
    for (int place = 0; place < number.places; ++place) unit *= 10;
    const std::int64_t units = std::llround(std::abs(number.value) * static_cast<double>(unit));
    if (number.value < 0 && units > 0) add("-");
    add(units / unit);
    if (number.places > 0) add(".");
    for (std::int64_t below = unit; below > 1; below /= 10) add(units % below * 10 / below);
  }

  std::array<char, 63> text_{};
  std::size_t size_ = 0;
};

// The strip at the top of a picture: what counts, at its left and right ends. Draw the rest below kHeaderHeight.
inline constexpr float kHeaderHeight = 26;
inline void draw_header(Canvas& canvas, std::string_view left, std::string_view right = "") {
  const auto width = static_cast<float>(canvas.width());
  canvas.rect({0, 0, width, kHeaderHeight}, palette::kPanel);
  canvas.text({8, 6}, left, palette::kText);
  canvas.text({width - 8, 6}, right, palette::kText, Align::kRight);
}

// What of the picture is below the header, without a margin on all sides.
inline Box below_header(int width, int height, float margin = 8) {
  return Box{0, kHeaderHeight, static_cast<float>(width), static_cast<float>(height) - kHeaderHeight}.inset(margin);
}
inline Box below_header(const Canvas& canvas, float margin = 8) {
  return below_header(canvas.width(), canvas.height(), margin);
}

// Of an agent that is not in the picture.
inline constexpr Point kNowhere{-1, -1};

// A bar that is filled from the left by a part from 0 to 1.
inline void draw_gauge(Canvas& canvas, const Box& box, float part, Color color) {
  canvas.rect(box, palette::kGrid, box.height / 2);
  const float filled = part > 0 ? std::min(part, 1.0F) * box.width : 0;
  if (filled > 0) canvas.rect({box.x, box.y, filled, box.height}, color, box.height / 2);
}

// Square cells of whole pixels, as large as fit into an area, in its middle.
class Board {
 public:
  Board(const Box& area, int columns, int rows) : columns_(columns), rows_(rows) {
    const auto wide = static_cast<float>(columns), high = static_cast<float>(rows);
    side_ = std::floor(std::min(area.width / wide, area.height / high));
    x_ = std::floor(area.x + (area.width - side_ * wide) / 2);
    y_ = std::floor(area.y + (area.height - side_ * high) / 2);
  }
  float side() const { return side_; }
  Box box() const { return {x_, y_, side_ * static_cast<float>(columns_), side_ * static_cast<float>(rows_)}; }
  Box cell(int column, int row) const {
    return {x_ + side_ * static_cast<float>(column), y_ + side_ * static_cast<float>(row), side_, side_};
  }

 private:
  int columns_, rows_;
  float side_, x_, y_;
};

// A place and a direction: turns a shape's own coordinates into those of the picture. The shape's x points ahead, its y
// to the right; angle 0 is towards the right border of the picture, and it grows clockwise (in radians).
//   const Pose pose({x, y}, angle);
//   canvas.polygon({pose(9, 0), pose(-6, -6), pose(-6, 6)}, palette::kAgent);
class Pose {
 public:
  Pose(Point at, double angle)
      : at_(at), cosine_(static_cast<float>(std::cos(angle))), sine_(static_cast<float>(std::sin(angle))) {}
  Point operator()(float x, float y) const {
    return {at_.x + x * cosine_ - y * sine_, at_.y + x * sine_ + y * cosine_};
  }

 private:
  Point at_;
  float cosine_, sine_;
};

}  // namespace dist_trainer
