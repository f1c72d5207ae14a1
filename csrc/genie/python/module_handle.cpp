#include "genie/python/module_handle.h"

#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "genie/nn/linear.h"
#include "genie/nn/rebindable.h"

namespace genie::python {
namespace {

namespace py = pybind11;
using torch::nn::Module;
using NamedTensors = std::vector<std::pair<std::string, std::optional<at::Tensor>>>;

using TensorDict = torch::OrderedDict<std::string, at::Tensor>;

/// Opens what torch::nn::Module keeps to its subclasses.
struct ParameterAccess : Module {
  static TensorDict& parameters(Module& module) { return module.*(&ParameterAccess::parameters_); }
};

// Buffers are private, and a registered one can't be exchanged by any public call. An explicit instantiation
// may name a private member.
struct BufferAccess {
  using Member = TensorDict Module::*;
  friend Member buffers_member(BufferAccess);
};
template <BufferAccess::Member member>
struct ExposeBuffers {
  friend BufferAccess::Member buffers_member(BufferAccess) { return member; }
};
template struct ExposeBuffers<&Module::buffers_>;

TensorDict& own_parameters(Module& module) { return ParameterAccess::parameters(module); }
TensorDict& own_buffers(Module& module) { return module.*buffers_member(BufferAccess{}); }

/// The module's own tensors; absent ones (a bias that is off) are None.
NamedTensors named(const TensorDict& dict) {
  NamedTensors result;
  for (const auto& item : dict) {
    result.emplace_back(item.key(), item.value().defined() ? std::optional(item.value()) : std::nullopt);
  }
  return result;
}

NamedTensors derived_buffers(Module& module) {
  NamedTensors result;
  if (const auto* owner = dynamic_cast<nn::DerivedBuffers*>(&module)) {
    for (auto& [name, tensor] : owner->derived_buffers()) result.emplace_back(name, tensor);
  }
  return result;
}

/// Gives a layer of torch the tensor; false where the module is no such layer.
bool rebind_layer(Module& module, const std::string& name, const at::Tensor& tensor) {
  if (auto* linear = module.as<torch::nn::LinearImpl>()) {
    (name == "weight" ? linear->weight : linear->bias) = tensor;
  } else if (auto* norm = module.as<torch::nn::LayerNormImpl>()) {
    (name == "weight" ? norm->weight : norm->bias) = tensor;
  } else if (auto* embedding = module.as<torch::nn::EmbeddingImpl>()) {
    embedding->weight = tensor;
  } else if (auto* convolution = module.as<torch::nn::Conv3dImpl>()) {
    (name == "weight" ? convolution->weight : convolution->bias) = tensor;
  } else {
    return false;
  }
  return true;
}

/// Makes the module use `tensor` as its parameter or buffer `name`.
void rebind(Module& module, const std::string& name, const at::Tensor& tensor) {
  auto& parameters = own_parameters(module);
  auto& buffers = own_buffers(module);
  auto* entry = parameters.find(name);
  if (!entry) entry = buffers.find(name);
  TORCH_CHECK_VALUE(entry, module.name(), " has no parameter or buffer '", name, "'");
  if (entry->is_same(tensor)) return;
  TORCH_CHECK_VALUE(!entry->defined() || entry->sizes() == tensor.sizes(), "'", name,
                    "' must keep its shape ", entry->sizes(), ", got ", tensor.sizes());
  auto* owner = dynamic_cast<nn::Rebindable*>(&module);
  if (owner) {
    owner->rebind(name, tensor);
  } else {
    TORCH_CHECK_NOT_IMPLEMENTED(
        rebind_layer(module, name, tensor), module.name(), " can't exchange its '", name,
        "': the C++ code holds the tensor. Change it in place, for example with copy_()");
  }
  *entry = tensor;
}

void rebuild_derived_buffers(Module& module) {
  if (auto* owner = dynamic_cast<nn::DerivedBuffers*>(&module)) owner->rebuild_derived_buffers();
}

py::object cast_module(const std::shared_ptr<Module>& module) {
  for (auto cast = module_casts().rbegin(); cast != module_casts().rend(); ++cast) {
    if (auto found = (*cast)(module)) return found;
  }
  return py::cast(module);
}

py::list children(Module& module) {
  py::list result;
  for (const auto& item : module.named_children()) {
    result.append(py::make_tuple(item.key(), cast_module(item.value())));
  }
  return result;
}

std::string describe(const Module& module) {
  std::ostringstream out;
  module.pretty_print(out);
  return out.str();
}

}  // namespace

std::vector<ModuleCast>& module_casts() {
  static std::vector<ModuleCast> casts;
  return casts;
}

void bind_module_handle(py::module_& m) {
  using namespace py::literals;
  py::class_<Module, std::shared_ptr<Module>>(
      m, "Module", py::module_local(), "A C++ module; genie_cpp.nn.Module makes a torch.nn.Module of it.")
      .def("own_parameters", [](Module& self) { return named(own_parameters(self)); })
      .def("own_buffers", [](Module& self) { return named(own_buffers(self)); })
      .def("derived_buffers", &derived_buffers,
           "Buffers outside the state dict, computed from the arguments.")
      .def("rebuild_derived_buffers", &rebuild_derived_buffers, NoGil())
      .def("own_children", &children)
      .def("rebind", &rebind, "name"_a, "tensor"_a, "Uses another tensor of the same shape.")
      .def("train", &Module::train, "mode"_a)
      .def_property_readonly("training", &Module::is_training)
      .def_property_readonly("cpp_name", [](const Module& self) { return self.name(); })
      .def("describe", &describe);
  module_class<nn::LinearImpl>(m, "Linear").def("forward", &nn::LinearImpl::forward, NoGil());
  module_class<torch::nn::LayerNormImpl>(m, "LayerNorm")
      .def("forward", &torch::nn::LayerNormImpl::forward, NoGil());
  module_class<torch::nn::EmbeddingImpl>(m, "Embedding")
      .def("forward", &torch::nn::EmbeddingImpl::forward, NoGil());
}

}  // namespace genie::python
