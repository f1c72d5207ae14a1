#pragma once

#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/nn/module.h>

#include <memory>
#include <vector>

#include "genie/python/no_gil.h"

namespace genie::python {

/// A module class as Python sees it: genie_cpp.nn.Module adopts it. Local to this extension, because torch
/// has bound torch::nn::Module for itself.
template <class Impl>
using ModuleClass = pybind11::class_<Impl, torch::nn::Module, std::shared_ptr<Impl>>;

/// Makes the Python object of a module if it is of the bound class, else an empty one. pybind11 can't find
/// the class of a module by itself: it compares type information by address, and the extension hides its own.
using ModuleCast = pybind11::object (*)(const std::shared_ptr<torch::nn::Module>&);

/// Those of all bound classes; derived ones come after their bases.
std::vector<ModuleCast>& module_casts();

template <class Impl>
ModuleClass<Impl> module_class(pybind11::module_& m, const char* name) {
  module_casts().push_back([](const std::shared_ptr<torch::nn::Module>& module) {
    const auto found = std::dynamic_pointer_cast<Impl>(module);
    return found ? pybind11::cast(found) : pybind11::object();
  });
  return ModuleClass<Impl>(m, name, pybind11::module_local());
}

/// The base class: parameters, buffers and children of one module.
void bind_module_handle(pybind11::module_& m);

}  // namespace genie::python
