#pragma once

#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/nn/module.h>

#include <memory>
#include <string>

namespace genie::python {

/// Calls that may take long run without the GIL.
using NoGil = pybind11::call_guard<pybind11::gil_scoped_release>;

template <class Dict>
pybind11::dict to_python(const Dict& tensors) {
  pybind11::dict result;
  for (const auto& item : tensors) result[pybind11::str(item.key())] = item.value();
  return result;
}

/// What every bound torch::nn module has. Parameters and buffers are the module's own tensors, not copies.
template <class Impl>
pybind11::class_<Impl, std::shared_ptr<Impl>> bind_module(pybind11::module_& m, const char* name,
                                                          const char* doc) {
  namespace py = pybind11;
  return py::class_<Impl, std::shared_ptr<Impl>>(m, name, doc)
      .def(
          "train", [](Impl& module, bool on) { module.train(on); }, py::arg("on") = true)
      .def("eval", [](Impl& module) { module.eval(); })
      .def_property_readonly("is_training", [](const Impl& module) { return module.is_training(); })
      .def(
          "to", [](Impl& module, const at::Device& device) { module.to(device); }, py::arg("device"), NoGil())
      .def("named_parameters", [](const Impl& module) { return to_python(module.named_parameters()); })
      .def("named_buffers", [](const Impl& module) { return to_python(module.named_buffers()); });
}

}  // namespace genie::python
