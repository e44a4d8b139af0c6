// The mazes of maze.h: a spanning tree by depth-first search, locked doors on its way from the start to the exit, the
// key of each before it, and a few more passages between squares that no door separates.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "../../rng.h"

namespace dist_trainer {

enum class Square : std::uint8_t { kFree, kWall, kExit, kKey, kLocked, kOpenable };  // openable: its key has been found

struct MazeLevel {
  // Rows of squares, north first, with a margin of walls. Cells, where ways meet, are every second square.
  static constexpr int kMostCells = 12, kMostDoors = 3, kMargin = 5;
  static constexpr int kStride = 2 * kMostCells + 1 + 2 * kMargin, kSquares = kStride * kStride;
  static constexpr std::array<int, 4> kMoves{-kStride, 1, kStride, -1};  // north, east, south, west

  std::array<Square, kSquares> squares;
  std::array<std::int32_t, kMostDoors> key_at, door_at;  // of each door, the first on the way being door 0
  std::int32_t cells, doors, start, exit;

  // A function of the arguments and the numbers drawn. There are fewer doors than asked for if there is no room.
  void build(int cells_of_a_side, int most_doors, float loops, Rng& rng) {
    cells = cells_of_a_side;
    squares.fill(Square::kWall);
    key_at.fill(0);
    door_at.fill(0);
    const int first = rng.below(cells * cells);
    start = square_of(first);
    Tree tree;
    const int deepest = grow(tree, first, rng);
    doors = std::min(most_doors, deepest - 1);

    // The exit is in the deeper half.
    const int least = std::max(doors + 1, deepest / 2);
    const int last = pick([&](int cell) { return tree.depth[cell] >= least; }, rng);
    exit = square_of(last);
    squares[exit] = Square::kExit;
    place_doors(tree, last, rng);
    open_loops(tree, loops, rng);

    // A key may lie behind earlier doors.
    for (int door = 0; door < doors; ++door) {
      key_at[door] = square_of(pick(
          [&](int cell) {
            return squares[square_of(cell)] == Square::kFree && cell != first && tree.region[cell] <= door;
          },
          rng));
      squares[key_at[door]] = Square::kKey;
    }
  }

  // Steps of the best player, by breadth-first search over squares and keys held.
  std::int32_t count_shortest() const {
    constexpr int kSets = 1 << kMostDoors;
    std::array<bool, kSquares * kSets> seen{};
    std::array<std::int32_t, kSquares * kSets> queue;
    int begin = 0, end = 0;
    queue[end++] = start * kSets;
    for (std::int32_t length = 1; begin < end; ++length) {
      for (const int layer = end; begin < layer; ++begin) {
        for (const int move : kMoves) {
          const int to = queue[begin] / kSets + move;
          int keys = queue[begin] % kSets;
          if (squares[to] == Square::kExit) return length;
          if (squares[to] == Square::kWall || !passes(to, keys)) continue;
          if (squares[to] == Square::kKey) keys |= 1 << number_of(key_at, to);
          const int state = to * kSets + keys;
          if (seen[state]) continue;
          seen[state] = true;
          queue[end++] = state;
        }
      }
    }
    return 0;  // never: every key lies before its door
  }

  int key_number(int square) const { return number_of(key_at, square); }

 private:
  struct Tree {                                                               // of cells, from the start
    std::array<std::int32_t, kMostCells * kMostCells> parent, depth, region;  // region: doors on the way to it
  };

  static int number_of(const std::array<std::int32_t, kMostDoors>& places, int square) {
    return static_cast<int>(std::find(places.begin(), places.end(), square) - places.begin());
  }
  bool passes(int square, int keys) const {
    return squares[square] != Square::kLocked || (keys >> number_of(door_at, square) & 1) != 0;
  }

  std::int32_t square_of(int cell) const {
    return (2 * (cell / cells) + 1 + kMargin) * kStride + 2 * (cell % cells) + 1 + kMargin;
  }
  std::int32_t between(int a, int b) const { return (square_of(a) + square_of(b)) / 2; }  // of two neighbours
  Square& passage(int a, int b) { return squares[between(a, b)]; }

  // A cell's neighbour in a direction of kMoves, or -1 beyond the border.
  int neighbour(int cell, int direction) const {
    constexpr std::array<int, 4> kDown{-1, 0, 1, 0}, kRight{0, 1, 0, -1};
    const int row = cell / cells + kDown[direction], column = cell % cells + kRight[direction];
    return row < 0 || row >= cells || column < 0 || column >= cells ? -1 : row * cells + column;
  }

  // Any of the cells that are good, of which there is one or more.
  int pick(auto&& is_good, Rng& rng) const {
    std::array<int, kMostCells * kMostCells> good;
    int count = 0;
    for (int cell = 0; cell < cells * cells; ++cell) {
      if (is_good(cell)) good[count++] = cell;
    }
    return good[rng.below(count)];
  }

  // Digs until every cell is reached; returns the largest depth.
  int grow(Tree& tree, int first, Rng& rng) {
    int cell = first, deepest = 0;
    tree.parent[first] = first;
    tree.depth[first] = 0;
    squares[start] = Square::kFree;
    while (true) {
      std::array<int, 4> unseen;
      int count = 0;
      for (int direction = 0; direction < 4; ++direction) {
        const int next = neighbour(cell, direction);
        if (next >= 0 && squares[square_of(next)] == Square::kWall) unseen[count++] = next;
      }
      if (count > 0) {
        const int next = unseen[rng.below(count)];
        squares[square_of(next)] = passage(cell, next) = Square::kFree;
        tree.parent[next] = cell;
        tree.depth[next] = tree.depth[cell] + 1;
        deepest = std::max(deepest, tree.depth[next]);
        cell = next;
      } else if (cell != first) {
        cell = tree.parent[cell];
      } else {
        return deepest;
      }
    }
  }

  // On the way from the start to the exit, not on its first passage, all choices alike.
  void place_doors(Tree& tree, int last, Rng& rng) {
    int left = doors;
    for (int cell = last; left > 0; cell = tree.parent[cell]) {
      if (rng.below(tree.depth[cell] - 1) >= left) continue;  // of so many passages that are left
      door_at[--left] = between(cell, tree.parent[cell]);
      passage(cell, tree.parent[cell]) = Square::kLocked;
    }
    for (int cell = 0; cell < cells * cells; ++cell) {
      tree.region[cell] = 0;
      for (int below = cell; tree.depth[below] > 0; below = tree.parent[below]) {
        tree.region[cell] += passage(below, tree.parent[below]) == Square::kLocked;
      }
    }
  }

  void open_loops(const Tree& tree, float probability, Rng& rng) {
    for (int cell = 0; cell < cells * cells; ++cell) {
      for (const int direction : {1, 2}) {
        const int next = neighbour(cell, direction);
        if (next < 0 || passage(cell, next) != Square::kWall || tree.region[cell] != tree.region[next]) continue;
        if (rng.chance(probability)) passage(cell, next) = Square::kFree;
      }
    }
  }
};

}  // namespace dist_trainer
