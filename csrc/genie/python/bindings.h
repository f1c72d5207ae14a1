#pragma once

#include <torch/csrc/utils/pybind.h>

namespace genie::python {

// One file a room. bind_config comes first: it registers the exceptions and Config, which the others use.
void bind_config(pybind11::module_& m);
void bind_data(pybind11::module_& m);
void bind_inference(pybind11::module_& m);
void bind_models(pybind11::module_& m);
void bind_nn(pybind11::module_& m);
void bind_ops(pybind11::module_& m);
void bind_training(pybind11::module_& m);
void bind_vision(pybind11::module_& m);

}  // namespace genie::python
