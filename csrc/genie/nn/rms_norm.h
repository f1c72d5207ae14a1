#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <string>

#include "genie/nn/rebindable.h"

namespace genie::nn {

/// Root mean square norm (Zhang and Sennrich 2019, arXiv 1910.07467) of the last axis, with a learned weight:
/// x / sqrt(mean(x^2) + eps) * weight. Computed in float32 (float64 for float64) and returned in x's dtype.
class RMSNormImpl : public torch::nn::Module, public Rebindable {
 public:
  explicit RMSNormImpl(int64_t dim, double eps = 1e-6);
  /// x (..., dim); same shape out.
  at::Tensor forward(const at::Tensor& x);
  void rebind(const std::string& name, const at::Tensor& tensor) override;
  void pretty_print(std::ostream& stream) const override;

 private:
  double eps_;
  at::Tensor weight_;
};
TORCH_MODULE(RMSNorm);

/// The norm of a name: "layernorm" (with weight and bias) or "rmsnorm". Throws for another name.
torch::nn::AnyModule make_norm(const std::string& type, int64_t dim, double eps);

}  // namespace genie::nn
