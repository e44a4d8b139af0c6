// A picture of width x height pixels, and what is drawn into it: a pure function of the calls, the same bytes with
// every compiler.
//
// Coordinates are pixels, x to the right and y downwards from the top left corner; (0, 0) is the corner of the first
// pixel, not its middle. They may be fractions (edges are smooth) and lie anywhere: all is clipped at the borders.
// Nothing allocates memory. What a picture is made of besides (Board, Pose, Label) is in picture.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string_view>

#include "font.h"
#include "palette.h"

namespace dist_trainer {

struct Point {
  float x = 0, y = 0;
};

struct Box {
  float x = 0, y = 0, width = 0, height = 0;
  Point center() const { return {x + width / 2, y + height / 2}; }
  Box inset(float by) const { return {x + by, y + by, width - 2 * by, height - 2 * by}; }
};

// One letter of a sprite and its colour.
struct Ink {
  char letter;
  Color color;
};

enum class Align { kLeft, kCenter, kRight };

class Canvas {
 public:
  // Draws into `pixels`, (height, width, 3) bytes, red, green, blue; palette::kBackground before anything else.
  Canvas(std::uint8_t* pixels, int width, int height) : pixels_(pixels), width_(width), height_(height) {
    fill(palette::kBackground);
  }

  int width() const { return width_; }
  int height() const { return height_; }

  void fill(Color color) {
    for (int y = 0; y < height_; ++y) {
      for (int x = 0; x < width_; ++x) blend(x, y, color, kSamples);
    }
  }

  // Rounded by `radius` at the corners.
  void rect(const Box& box, Color color, float radius = 0) {
    const Bounds bounds{fixed(box.x), fixed(box.y), fixed(box.x + box.width), fixed(box.y + box.height)};
    const std::int64_t smaller = std::min(bounds.right - bounds.left, bounds.bottom - bounds.top);
    if (smaller <= 0) return;
    const std::int64_t r = std::clamp(fixed(radius), std::int64_t{0}, smaller / 2);
    paint(bounds, color, [=](std::int64_t x, std::int64_t y) {
      const std::int64_t dx = x - std::clamp(x, bounds.left + r, bounds.right - r);
      const std::int64_t dy = y - std::clamp(y, bounds.top + r, bounds.bottom - r);
      return bounds.contain(x, y) && dx * dx + dy * dy <= r * r;
    });
  }

  // The outline of a box, inwards from its edges.
  void frame(const Box& box, float thickness, Color color) {
    rect({box.x, box.y, box.width, thickness}, color);
    rect({box.x, box.y + box.height - thickness, box.width, thickness}, color);
    rect({box.x, box.y + thickness, thickness, box.height - 2 * thickness}, color);
    rect({box.x + box.width - thickness, box.y + thickness, thickness, box.height - 2 * thickness}, color);
  }

  void disc(Point center, float radius, Color color) { ring(center, radius, radius, color); }

  // The outermost `thickness` of a disc.
  void ring(Point center, float radius, float thickness, Color color) {
    const std::int64_t x0 = fixed(center.x), y0 = fixed(center.y), outer = std::max(fixed(radius), std::int64_t{0});
    const std::int64_t inner = thickness < radius ? fixed(radius - thickness) : 0, hole = inner * inner;
    paint({x0 - outer, y0 - outer, x0 + outer, y0 + outer}, color, [=](std::int64_t x, std::int64_t y) {
      const std::int64_t distance = (x - x0) * (x - x0) + (y - y0) * (y - y0);
      return distance <= outer * outer && distance >= hole;
    });
  }

  // With round ends, which reach half the thickness beyond a and b.
  void line(Point a, Point b, float thickness, Color color) {
    const std::int64_t x0 = fixed(a.x), y0 = fixed(a.y), dx = fixed(b.x) - x0, dy = fixed(b.y) - y0;
    const std::int64_t r = std::max(fixed(thickness / 2), std::int64_t{0}), length = dx * dx + dy * dy;
    const Bounds bounds{std::min(x0, x0 + dx) - r, std::min(y0, y0 + dy) - r, std::max(x0, x0 + dx) + r,
                        std::max(y0, y0 + dy) + r};
    paint(bounds, color, [=](std::int64_t x, std::int64_t y) {
      const std::int64_t px = x - x0, py = y - y0, along = px * dx + py * dy;
      if (along <= 0) return px * px + py * py <= r * r;
      if (along >= length) return (px - dx) * (px - dx) + (py - dy) * (py - dy) <= r * r;
      const auto across = static_cast<double>(px * dy - py * dx);  // exact; its square is rounded, everywhere alike
      return across * across <= static_cast<double>(r * r) * static_cast<double>(length);
    });
  }

  // Filled, of any shape; where it overlaps itself an even number of times it is not filled. At most kMaxCorners.
  static constexpr std::size_t kMaxCorners = 16;
  void polygon(std::span<const Point> corners, Color color) {
    const std::size_t count = std::min(corners.size(), kMaxCorners);
    std::array<std::int64_t, kMaxCorners> xs, ys;
    for (std::size_t i = 0; i < count; ++i) {
      xs[i] = fixed(corners[i].x);
      ys[i] = fixed(corners[i].y);
    }
    if (count < 3) return;
    const auto [left, right] = std::minmax_element(xs.begin(), xs.begin() + count);
    const auto [top, bottom] = std::minmax_element(ys.begin(), ys.begin() + count);
    paint({*left, *top, *right, *bottom}, color, [&](std::int64_t x, std::int64_t y) {
      bool inside = false;
      for (std::size_t i = 0, j = count - 1; i < count; j = i++) {
        if ((ys[i] <= y) == (ys[j] <= y)) continue;  // this edge does not cross the sample's row
        const std::int64_t side = (xs[j] - xs[i]) * (y - ys[i]) - (x - xs[i]) * (ys[j] - ys[i]);
        inside ^= (side > 0) == (ys[j] > ys[i]);  // it does so to the right of the sample
      }
      return inside;
    });
  }
  void polygon(std::initializer_list<Point> corners, Color color) { polygon(std::span(corners), color); }

  // From a to b, with a head at b that is four times as wide as the shaft.
  void arrow(Point a, Point b, float thickness, Color color) {
    const float dx = b.x - a.x, dy = b.y - a.y, length = std::sqrt(dx * dx + dy * dy);
    if (!(length > 0)) return;
    const float head = std::min(4 * thickness, length), x = dx / length * head, y = dy / length * head;
    const Point neck{b.x - x, b.y - y};
    const float half = thickness / (2 * head);
    polygon({{a.x - y * half, a.y + x * half},
             {neck.x - y * half, neck.y + x * half},
             {neck.x - y / 2, neck.y + x / 2},
             b,
             {neck.x + y / 2, neck.y - x / 2},
             {neck.x + y * half, neck.y - x * half},
             {a.x + y * half, a.y - x * half}},
            color);
  }

  // A bitmap of letters, one string for each row, with a square of `scale` pixels for each letter that has an ink:
  //   static constexpr std::string_view kKey[] = {".oo....", "o..oooo", ".oo..o."};
  //   canvas.sprite({x, y}, kKey, {{'o', palette::kGold}}, 3);
  void sprite(Point top_left, std::span<const std::string_view> rows, std::initializer_list<Ink> inks, int scale = 1) {
    const auto side = static_cast<float>(scale);
    for (std::size_t row = 0; row < rows.size(); ++row) {
      for (std::size_t column = 0; column < rows[row].size(); ++column) {
        const auto* ink = std::find_if(inks.begin(), inks.end(),
                                       [letter = rows[row][column]](const Ink& each) { return each.letter == letter; });
        if (ink == inks.end()) continue;
        const float x = static_cast<float>(column) * side, y = static_cast<float>(row) * side;
        rect({top_left.x + x, top_left.y + y, side, side}, ink->color);
      }
    }
  }

  static constexpr int kTextScale = 2;
  static int text_width(std::string_view text, int scale = kTextScale) {
    return text.empty() ? 0 : (static_cast<int>(text.size()) * font::kAdvance - 1) * scale;
  }
  static int text_height(int scale = kTextScale) { return font::kGlyphHeight * scale; }

  // One line in the font of font.h. `at` is the top of its left end, its middle or its right end, moved to whole
  // pixels.
  void text(Point at, std::string_view text, Color color, Align align = Align::kLeft, int scale = kTextScale) {
    const int width = text_width(text, scale);
    const std::int64_t shift = align == Align::kLeft ? 0 : align == Align::kCenter ? width / 2 : width;
    std::int64_t left = (fixed(at.x) >> kBits) - shift;
    const std::int64_t top = fixed(at.y) >> kBits;
    const auto square = [scale](std::int64_t x, std::int64_t y) {
      return Box{static_cast<float>(x), static_cast<float>(y), static_cast<float>(scale), static_cast<float>(scale)};
    };
    for (const char character : text) {
      for (int y = 0; y < font::kGlyphHeight; ++y) {
        for (int x = 0; x < font::kGlyphWidth; ++x) {
          if (font::is_ink(character, x, y)) rect(square(left + x * scale, top + y * scale), color);
        }
      }
      left += font::kAdvance * scale;
    }
  }

 private:
  // Shapes are tested in 1/16 of a pixel, at 4 x 4 samples of each pixel.
  static constexpr int kBits = 4, kUnit = 1 << kBits, kGrid = 4, kSamples = kGrid * kGrid;
  static constexpr float kFarthest = 8192;  // pixels; what is farther away is moved there

  struct Bounds {
    std::int64_t left, top, right, bottom;
    bool contain(std::int64_t x, std::int64_t y) const { return x >= left && x < right && y >= top && y < bottom; }
  };

  static std::int64_t fixed(float pixels) {
    const float near = pixels > -kFarthest ? std::min(pixels, kFarthest) : -kFarthest;  // NaN too
    return static_cast<std::int64_t>(std::floor(near * kUnit + 0.5F));
  }

  // Blends the colour into each pixel by how many of its samples are inside.
  template <class Inside>
  void paint(const Bounds& bounds, Color color, const Inside& inside) {
    const auto first = [](std::int64_t from) { return static_cast<int>(std::max(from, std::int64_t{0}) >> kBits); };
    const auto last = [](std::int64_t to, int size) {
      return static_cast<int>(std::min<std::int64_t>((to + kUnit - 1) >> kBits, size));
    };
    const int end_x = last(bounds.right, width_), end_y = last(bounds.bottom, height_);
    for (int y = first(bounds.top); y < end_y; ++y) {
      for (int x = first(bounds.left); x < end_x; ++x) {
        int covered = 0;
        for (int sample = 0; sample < kSamples; ++sample) {
          const int right = (2 * (sample % kGrid) + 1) * kUnit / (2 * kGrid);
          const int down = (2 * (sample / kGrid) + 1) * kUnit / (2 * kGrid);
          covered += inside(std::int64_t{x} * kUnit + right, std::int64_t{y} * kUnit + down);
        }
        if (covered > 0) blend(x, y, color, covered);
      }
    }
  }

  void blend(int x, int y, Color color, int covered) {
    std::uint8_t* pixel = pixels_ + (static_cast<std::ptrdiff_t>(y) * width_ + x) * 3;
    constexpr int kWhole = kSamples * 255;
    const int weight = covered * color.alpha;
    const auto channel = [=](int below, int above) {
      return static_cast<std::uint8_t>((below * (kWhole - weight) + above * weight + kWhole / 2) / kWhole);
    };
    pixel[0] = channel(pixel[0], color.red);
    pixel[1] = channel(pixel[1], color.green);
    pixel[2] = channel(pixel[2], color.blue);
  }

  std::uint8_t* pixels_;
  int width_, height_;
};

}  // namespace dist_trainer
