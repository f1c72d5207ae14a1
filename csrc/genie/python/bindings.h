#pragma once

#include <torch/csrc/utils/pybind.h>

namespace genie::python {

void bind_data(pybind11::module_& m);

}  // namespace genie::python
