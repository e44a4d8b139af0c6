// Recursions along the steps of a rollout, for tensors in main memory. Arrays are time-major, (steps, rows),
// contiguous.
//
// Each number is computed by the same operations in the same order as by the torch expressions that stand beside the
// calls (dist_trainer/advantage.py, normalize.py), hence has the same bits. A row of numbers is handled at a time, so
// that the compiler takes several in a register and memory is read from front to back.
#pragma once

#include <cstddef>
#include <vector>

namespace dist_trainer {

struct Extent {
  std::size_t steps, rows;
};

// sums[t] = terms[t] + decay[t] * sums[t + 1], and 0 after the last step.
template <class Real>
void decayed_sums(Extent extent, const Real* terms, const Real* decay, Real* sums) {
  const std::vector<Real> nothing(extent.rows);
  const Real* later = nothing.data();
  for (std::size_t t = extent.steps; t-- > 0;) {
    const std::size_t at = t * extent.rows;
    const Real* __restrict term = terms + at, * __restrict factor = decay + at;
    Real* __restrict sum = sums + at;
    for (std::size_t i = 0; i < extent.rows; ++i) sum[i] = term[i] + factor[i] * later[i];
    later = sum;
  }
}

// Generalized advantage estimation (arXiv 1506.02438): the decayed sum of rewards + gamma * next_values - values,
// decaying by gamma * lambda, and by 0 where done.
template <class Real>
void gae(Extent extent, const Real* rewards, const Real* values, const Real* next_values, const bool* done,
         double gamma, double lambda, Real* advantages) {
  const auto discount = static_cast<Real>(gamma), decay = static_cast<Real>(gamma * lambda);
  const std::vector<Real> nothing(extent.rows);
  const Real* later = nothing.data();
  for (std::size_t t = extent.steps; t-- > 0;) {
    const std::size_t at = t * extent.rows;
    const Real* __restrict reward = rewards + at, * __restrict value = values + at;
    const Real* __restrict next = next_values + at;
    const bool* __restrict ends = done + at;
    Real* __restrict advantage = advantages + at;
    for (std::size_t i = 0; i < extent.rows; ++i) {
      const Real error = reward[i] + discount * next[i] - value[i];
      advantage[i] = error + (ends[i] ? Real{0} : decay) * later[i];
    }
    later = advantage;
  }
}

// The return of each row so far, discounted: running = gamma * running + reward, written to `returns`, then 0 where
// done. `running` (rows,) comes from the rollout before and goes to the next.
template <class Real>
void discounted_returns(Extent extent, const Real* rewards, const bool* done, double gamma, double* running,
                        double* returns) {
  double* __restrict so_far = running;
  for (std::size_t t = 0; t < extent.steps; ++t) {
    const std::size_t at = t * extent.rows;
    const Real* __restrict reward = rewards + at;
    const bool* __restrict ends = done + at;
    double* __restrict out = returns + at;
    for (std::size_t i = 0; i < extent.rows; ++i) {
      const double total = so_far[i] * gamma + static_cast<double>(reward[i]);
      out[i] = total;
      so_far[i] = ends[i] ? 0.0 : total;
    }
  }
}

}  // namespace dist_trainer
