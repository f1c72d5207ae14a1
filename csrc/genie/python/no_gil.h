#pragma once

#include <torch/csrc/utils/pybind.h>

namespace genie::python {

/// Calls that may take long run without the GIL.
using NoGil = pybind11::call_guard<pybind11::gil_scoped_release>;

}  // namespace genie::python
