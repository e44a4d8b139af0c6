// Adds to the Python module what works on arrays alone.
#pragma once

#include <pybind11/pybind11.h>

namespace dist_trainer {

void define_kernels(pybind11::module_& m);

}  // namespace dist_trainer
