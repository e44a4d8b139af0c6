// How the MOBA's heroes and creeps move.
#pragma once

#include "moba_heroes.h"

namespace dist_trainer::moba {

struct Moves : Heroes {
 protected:
  void walk(int h, int direction) {
    const int i = unit_of_hero(h);
    const Cell step = kSteps[index(direction)];
    const Cell to = team_of(i) == 0 ? unit(i).cell + step : unit(i).cell + Cell{-step.x, -step.y};
    if (direction > 0 && is_free(to)) move(i, to);
  }

  // Towards an enemy in sight, else along the lane.
  void march(int i) {
    const int other = find(team_of(i), unit(i).cell, kSight, kNearest, true);
    if (other != kNobody) {
      approach(i, unit(other).cell);
    } else {
      descend(i, map().lane(unit(i).lane));
    }
  }

  // To a free cell beside, with the least of a field that is less than here, or the same.
  void descend(int i, const Map::Field& field) {
    const int team = team_of(i);
    const Cell here = unit(i).cell.seen_by(team);
    int least = field[here.at()] + 1;
    Cell best = here;
    for (int k = 1; k < kMoves; ++k) {
      const Cell there = here + kSteps[index(k)];
      if (field[there.at()] < least && is_free(there.seen_by(team))) {
        least = field[there.at()];
        best = there;
      }
    }
    if (best != here) move(i, best.seen_by(team));
  }

  void approach(int i, Cell goal) {
    const int team = team_of(i);
    const Cell here = unit(i).cell.seen_by(team), there = goal.seen_by(team);
    const auto far = [there](Cell c) {  // diagonal steps first, then straight ones
      return 64 * distance(c, there) + std::abs(c.x - there.x) + std::abs(c.y - there.y);
    };
    int least = far(here);
    Cell best = here;
    for (int k = 1; k < kMoves; ++k) {
      const Cell next = here + kSteps[index(k)];
      if (far(next) < least && is_free(next.seen_by(team))) {
        least = far(next);
        best = next;
      }
    }
    if (best != here) move(i, best.seen_by(team));
  }
};

}  // namespace dist_trainer::moba
