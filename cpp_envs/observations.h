// What normalizers do to observations in main memory, in one pass over them each.
#pragma once

#include <cstddef>

namespace dist_trainer {

// (rows, features): out = (x - mean) * scale, clipped to +- clip; what is not a number stays so. `out` may be `x`.
template <class Real>
void normalize(std::size_t rows, std::size_t features, const Real* x, const Real* mean, const Real* scale, Real clip,
               Real* out) {
  for (std::size_t row = 0; row < rows; ++row, x += features, out += features) {
    for (std::size_t i = 0; i < features; ++i) {
      const Real value = (x[i] - mean[i]) * scale[i];
      const Real above = value < -clip ? -clip : value;
      out[i] = above > clip ? clip : above;
    }
  }
}

// Adds to `sums` and `squares` (features,) those of the deviations from `pivot`.
template <class Real>
void add_deviations(std::size_t rows, std::size_t features, const Real* x, const double* pivot, double* __restrict sums,
                    double* __restrict squares) {
  for (std::size_t row = 0; row < rows; ++row, x += features) {
    for (std::size_t i = 0; i < features; ++i) {
      const double deviation = static_cast<double>(x[i]) - pivot[i];
      sums[i] += deviation;
      squares[i] += deviation * deviation;
    }
  }
}

}  // namespace dist_trainer
