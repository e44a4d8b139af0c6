// The binding of loops over numpy arrays: advantage.h, observations.h, noise.h.
#include "kernels.h"

#include <pybind11/numpy.h>

#include "advantage.h"
#include "noise.h"
#include "observations.h"

namespace py = pybind11;
namespace dt = dist_trainer;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

// The (steps, rows) that all of these arrays have.
template <class First, class... Rest>
dt::Extent common_extent(const First& first, const Rest&... rest) {
  if (first.ndim() != 2) throw std::invalid_argument("arrays must be (steps, rows)");
  [[maybe_unused]] const auto same = [&first](const auto& other) {
    return other.ndim() == 2 && other.shape(0) == first.shape(0) && other.shape(1) == first.shape(1);
  };
  if (!(same(rest) && ...)) throw std::invalid_argument("arrays must all have the same shape (steps, rows)");
  return {static_cast<std::size_t>(first.shape(0)), static_cast<std::size_t>(first.shape(1))};
}

template <class Real>
void decayed_sums(const Array<Real>& terms, const Array<Real>& decay, Array<Real>& sums) {
  const dt::Extent extent = common_extent(terms, decay, sums);
  Real* out = sums.mutable_data();
  const py::gil_scoped_release release;
  dt::decayed_sums(extent, terms.data(), decay.data(), out);
}

template <class Real>
void gae(const Array<Real>& rewards, const Array<Real>& values, const Array<Real>& next_values, const Array<bool>& done,
         double gamma, double lambda, Array<Real>& advantages) {
  const dt::Extent extent = common_extent(rewards, values, next_values, done, advantages);
  Real* out = advantages.mutable_data();
  const py::gil_scoped_release release;
  dt::gae(extent, rewards.data(), values.data(), next_values.data(), done.data(), gamma, lambda, out);
}

template <class Real>
void discounted_returns(const Array<Real>& rewards, const Array<bool>& done, double gamma, Array<double>& running,
                        Array<double>& returns) {
  const dt::Extent extent = common_extent(rewards, done, returns);
  if (running.ndim() != 1 || running.shape(0) != rewards.shape(1)) {
    throw std::invalid_argument("running must be (rows,)");
  }
  double *so_far = running.mutable_data(), *out = returns.mutable_data();
  const py::gil_scoped_release release;
  dt::discounted_returns(extent, rewards.data(), done.data(), gamma, so_far, out);
}

// The features of each row.
template <class Real, class... Vectors>
std::size_t common_features(const Array<Real>& rows, const Vectors&... vectors) {
  if (rows.ndim() != 2) throw std::invalid_argument("observations must be (rows, features)");
  if (!((vectors.ndim() == 1 && vectors.shape(0) == rows.shape(1)) && ...)) {
    throw std::invalid_argument("statistics must be (features,)");
  }
  return static_cast<std::size_t>(rows.shape(1));
}

template <class Real>
void normalize(const Array<Real>& x, const Array<Real>& mean, const Array<Real>& scale, Real clip, Array<Real>& out) {
  const std::size_t features = common_features(x, mean, scale), rows = common_extent(x, out).steps;
  Real* result = out.mutable_data();
  const py::gil_scoped_release release;
  dt::normalize(rows, features, x.data(), mean.data(), scale.data(), clip, result);
}

template <class Real>
void add_deviations(const Array<Real>& x, const Array<double>& pivot, Array<double>& sums, Array<double>& squares) {
  const std::size_t features = common_features(x, pivot, sums, squares), rows = common_extent(x).steps;
  double *to_sums = sums.mutable_data(), *to_squares = squares.mutable_data();
  const py::gil_scoped_release release;
  dt::add_deviations(rows, features, x.data(), pivot.data(), to_sums, to_squares);
}

// Arrays are taken as they are: another type is refused, not copied, for results are written in place.
template <class Real>
void define_kernels_of(py::module_& m) {
  m.def("normalize", &normalize<Real>, py::arg("x").noconvert(), py::arg("mean").noconvert(),
        py::arg("scale").noconvert(), py::arg("clip"), py::arg("out").noconvert());
  m.def("add_deviations", &add_deviations<Real>, py::arg("x").noconvert(), py::arg("pivot").noconvert(),
        py::arg("sums").noconvert(), py::arg("squares").noconvert());
  m.def("decayed_sums", &decayed_sums<Real>, py::arg("terms").noconvert(), py::arg("decay").noconvert(),
        py::arg("sums").noconvert());
  m.def("gae", &gae<Real>, py::arg("rewards").noconvert(), py::arg("values").noconvert(),
        py::arg("next_values").noconvert(), py::arg("done").noconvert(), py::arg("gamma"), py::arg("gae_lambda"),
        py::arg("advantages").noconvert());
  m.def("discounted_returns", &discounted_returns<Real>, py::arg("rewards").noconvert(), py::arg("done").noconvert(),
        py::arg("gamma"), py::arg("running").noconvert(), py::arg("returns").noconvert());
}

void noise_after(std::uint64_t seed, std::uint32_t first_env, const Array<std::uint64_t>& steps, Array<float>& noise) {
  if (steps.ndim() != 1 || noise.ndim() != 2 || noise.shape(0) != steps.shape(0)) {
    throw std::invalid_argument("steps must be (environments,), noise (environments, draws)");
  }
  const auto envs = static_cast<int>(noise.shape(0)), draws = static_cast<int>(noise.shape(1));
  dt::draw_noise({seed, first_env, steps.data(), envs, draws}, noise.mutable_data());
}

}  // namespace

void dt::define_kernels(py::module_& m) {
  define_kernels_of<float>(m);
  define_kernels_of<double>(m);
  m.def("draw_noise", &noise_after, py::arg("seed"), py::arg("first_env"), py::arg("steps").noconvert(),
        py::arg("noise").noconvert());
}
