#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

namespace genie::nn {

/// A module whose tensors can be exchanged for others: what Python needs where a parameter or a buffer of the
/// adopted tree is replaced (torch.func.functional_call, load_state_dict(assign=True), tied weights after a
/// copy).
class Rebindable {
 public:
  virtual ~Rebindable() = default;
  /// Makes the module use `tensor` as its own parameter or buffer `name`.
  virtual void rebind(const std::string& name, const at::Tensor& tensor) = 0;
};

/// A module with tensors that follow from its constructor's arguments: no part of the state dict, and rebuilt
/// where the module moves to another device or dtype, so that they never lose precision.
class DerivedBuffers {
 public:
  virtual ~DerivedBuffers() = default;
  virtual std::vector<std::pair<std::string, at::Tensor>> derived_buffers() const = 0;
  /// Computes them for the device and dtype of the parameters.
  virtual void rebuild_derived_buffers() = 0;
};

}  // namespace genie::nn
