// Snake: hundreds of snakes on one board with walls around it. All move at once. Food makes a snake a segment longer;
// who runs into a wall or a snake, or enters a square at the same time as another, dies, vanishes, and comes back
// elsewhere after a rest. Each sees the 11 x 11 squares around its head, turned so that ahead is up.
// Good: mean length at the end of a life (lives are cut off with the episode) at least the greedy bot's.
#pragma once

#include <algorithm>
#include <array>

#include "../picture.h"
#include "../registry.h"

namespace dist_trainer {

struct SnakePit {
  using Observation = std::uint8_t;
  using Action = std::int32_t;

  struct Params {
    int agents = 256;
    int size = 112;
    int food = 256;
    int rest = 8;
    int max_steps = 1000;
    void visit(auto&& field) {
      field("agents", agents, 1, kMostAgents, "snakes on the board");
      field("size", size, 8, kStride - 2 * kReach, "squares of a side");
      field("food", food, 1, 10'000, "pieces on the board, as far as there is room");
      field("rest", rest, 1, 1000, "steps that a dead snake waits");
      field("max_steps", max_steps, 1, 1'000'000, "steps until the episode is truncated");
    }
  };
  enum : std::int32_t { kAhead, kLeft, kRight };
  enum : std::uint8_t { kFree, kFood, kWall, kBody, kHead = kBody + 4 };  // kBody + heading of the next segment

  static constexpr int kReach = 5, kView = 2 * kReach + 1, kPlanes = 3, kMostAgents = 512, kBirthLength = 3;
  static constexpr int kStride = 128, kSquares = kStride * kStride;
  static constexpr int kTries = 32;                                      // for a place to appear at, each step
  static constexpr std::array<int, 4> kMoves{-kStride, 1, kStride, -1};  // by heading: north, east, south, west

  static constexpr PictureSize kPicture{464, 490};

  struct Snake {
    std::int32_t head, tail;  // squares
    std::int32_t length;      // kept while it rests
    std::int32_t heading;     // index of kMoves
    std::int32_t rest;        // steps until it comes back; 0: it lives
    std::int32_t next;        // the square that it enters in this step
  };

  // The board, four times: turned so that the heading that is its index is up. A view is then a piece of each row.
  std::array<std::array<std::uint8_t, kSquares>, 4> boards;
  std::array<Snake, kMostAgents> snakes;
  std::int32_t agents, food, steps;

  static Spec spec(const Params& params) {
    return {.observation_shape = {kPlanes * kView * kView},
            .action = ActionSpec::discrete(3),
            .num_agents = params.agents,
            .metrics = {"length"},
            .picture = kPicture};
  }

  void reset(const Params& params, Rng& rng) {
    agents = params.agents;
    food = steps = 0;
    for (auto& board : boards) board.fill(kWall);
    for (int i = 0; i < params.size * params.size; ++i) set(square_at(i / params.size, i % params.size), kFree);
    snakes = {};
    for (int i = 0; i < agents; ++i) {
      snakes[i].rest = 1;
      appear(snakes[i], params, rng);
    }
    scatter_food(params, rng);
  }

  void step(const Params& params, std::span<const Action> actions, std::span<StepResult> results, Rng& rng) {
    const bool over = ++steps >= params.max_steps;
    for (int i = 0; i < agents; ++i) {
      results[i] = {.reward = 0, .terminated = false, .truncated = over};
      if (snakes[i].rest == 0) leave(snakes[i], actions[i]);
    }
    for (int i = 0; i < agents; ++i) {
      if (snakes[i].rest == 0) enter(i, results);
    }
    for (int i = 0; i < agents; ++i) {
      Snake& snake = snakes[i];
      if (results[i].terminated) {
        vanish(snake);
        snake.rest = params.rest + 1;
      } else if (snake.rest > 0) {
        snake.rest = std::max(snake.rest - 1, 1);
        if (snake.rest == 1) appear(snake, params, rng);
      }
    }
    scatter_food(params, rng);
  }

  // Planes of 11 x 11 squares, ahead up: food; what kills; heads.
  void observe(const Params&, std::span<std::uint8_t> out) const {
    constexpr int kSize = kView * kView;
    for (int i = 0; i < agents; ++i) {
      std::uint8_t* shown = &out[i * kPlanes * kSize];
      const Snake& snake = snakes[i];
      if (snake.rest > 0) {
        std::fill_n(shown, kPlanes * kSize, std::uint8_t{0});
        continue;
      }
      const std::uint8_t* corner = &boards[snake.heading][turned(snake.head, snake.heading) - kReach * (kStride + 1)];
      std::array<std::uint8_t, kSize> view;
      for (int row = 0; row < kView; ++row) std::copy_n(corner + row * kStride, kView, &view[row * kView]);
      for (int k = 0; k < kSize; ++k) shown[k] = view[k] == kFood ? 255 : 0;
      for (int k = 0; k < kSize; ++k) shown[kSize + k] = view[k] >= kWall ? 255 : 0;
      for (int k = 0; k < kSize; ++k) shown[2 * kSize + k] = view[k] == kHead ? 255 : 0;
    }
  }

  void resting(const Params&, std::span<bool> out) const {
    for (int i = 0; i < agents; ++i) out[i] = snakes[i].rest > 0;
  }

  void metrics(const Params&, std::span<float> out) const {
    for (int i = 0; i < agents; ++i) out[i] = static_cast<float>(snakes[i].length);
  }

  void render(const Params& params, Canvas& canvas) const {
    canvas.fill(palette::kPanel);
    int alive = 0, longest = 0;
    for (const Snake& snake : std::span(snakes).first(static_cast<std::size_t>(agents))) {
      alive += snake.rest == 0;
      if (snake.rest == 0) longest = std::max(longest, snake.length);
    }
    draw_header(canvas, Label("ALIVE ", alive, " OF ", agents), Label("LONGEST ", longest, "  STEP ", steps));
    const Board board = board_of(params);
    const auto box_of = [&board](int square) { return cell_of(board, square); };
    canvas.frame(board.box().inset(-3), 3, palette::kWall);
    for (int i = 0; i < params.size * params.size; ++i) {
      const int square = square_at(i / params.size, i % params.size);
      if (boards[0][square] == kFood) canvas.disc(box_of(square).center(), 0.4F * board.side(), palette::kText);
    }
    for (int i = 0; i < agents; ++i) {
      if (snakes[i].rest > 0) continue;
      const Color color = palette::kSeries[static_cast<std::size_t>(i) % palette::kSeries.size()];
      for (int square = snakes[i].tail; square != snakes[i].head; square = next_segment(square)) {
        canvas.rect(box_of(square), mix(color, palette::kPanel, 0.35F));
      }
      canvas.rect(box_of(snakes[i].head), color);
    }
  }

  // Heads.
  void places(const Params& params, std::span<Point> out) const {
    const Board board = board_of(params);
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = snakes[i].rest > 0 ? kNowhere : cell_of(board, snakes[i].head).center();
    }
  }

 private:
  static int square_at(int row, int column) { return (row + kReach) * kStride + column + kReach; }

  // In the picture.
  static Board board_of(const Params& params) {
    return Board(below_header(kPicture.width, kPicture.height), params.size, params.size);
  }
  static Box cell_of(const Board& board, int square) {
    return board.cell(square % kStride - kReach, square / kStride - kReach);
  }

  // Where a square is on the board on which this heading is up.
  static int turned(int square, int heading) {
    const int row = square / kStride, column = square % kStride, last = kStride - 1;
    return std::array{square, (last - column) * kStride + row, kSquares - 1 - square,
                      column * kStride + last - row}[heading];
  }

  void set(int square, std::uint8_t what) {
    for (int heading = 0; heading < 4; ++heading) boards[heading][turned(square, heading)] = what;
  }

  int next_segment(int square) const { return square + kMoves[boards[0][square] - kBody]; }

  // Turns; its head becomes body, and its tail goes on, unless there is food ahead.
  void leave(Snake& snake, Action action) {
    snake.heading = (snake.heading + (action == kRight) + 3 * (action == kLeft)) % 4;
    snake.next = snake.head + kMoves[snake.heading];
    set(snake.head, static_cast<std::uint8_t>(kBody + snake.heading));
    if (boards[0][snake.next] == kFood) return;
    const int old = snake.tail;
    snake.tail = next_segment(old);
    set(old, kFree);
  }

  // All tails have moved on, and heads are those that have entered in this step.
  void enter(int i, std::span<StepResult> results) {
    Snake& snake = snakes[i];
    const std::uint8_t there = boards[0][snake.next];
    if (there == kHead) {  // all who meet here die, the first too
      for (int other = 0; other < i; ++other) {
        if (snakes[other].head == snake.next && snakes[other].rest == 0) die(snakes[other], results[other]);
      }
    }
    if (there >= kWall) return die(snake, results[i]);
    if (there == kFood) {
      --food;
      ++snake.length;
      results[i].reward = 1;
    }
    snake.head = snake.next;
    set(snake.head, kHead);
  }

  static void die(Snake& snake, StepResult& result) {
    if (result.reward > 0) --snake.length;  // it did not get the food
    result.reward = -1;
    result.terminated = true;
  }

  void vanish(const Snake& snake) {
    for (int square = snake.tail, next; square != snake.head; square = next) {
      next = next_segment(square);
      set(square, kFree);
    }
    set(snake.head, kFree);
  }

  // Somewhere with two free squares ahead, if a few tries find such a place; else it rests on.
  void appear(Snake& snake, const Params& params, Rng& rng) {
    for (int i = 0; i < kTries; ++i) {
      const int head = any_square(params, rng), heading = rng.below(4), move = kMoves[heading];
      bool is_free = true;
      for (int k = 1 - kBirthLength; k <= 2; ++k) is_free &= boards[0][head + k * move] == kFree;
      if (!is_free) continue;
      const int tail = head + (1 - kBirthLength) * move;
      for (int square = tail; square != head; square += move) set(square, static_cast<std::uint8_t>(kBody + heading));
      set(head, kHead);
      snake = {.head = head, .tail = tail, .length = kBirthLength, .heading = heading, .rest = 0, .next = head};
      return;
    }
  }

  // As much as is missing; what finds no place in two tries each comes in a later step.
  void scatter_food(const Params& params, Rng& rng) {
    for (int tries = 2 * (params.food - food); food < params.food && tries > 0; --tries) {
      const int square = any_square(params, rng);
      if (boards[0][square] != kFree) continue;
      set(square, kFood);
      ++food;
    }
  }

  static int any_square(const Params& params, Rng& rng) {
    const int row = rng.below(params.size);
    return square_at(row, rng.below(params.size));
  }
};

REGISTER_ENV(SnakePit, "snake");

}  // namespace dist_trainer
