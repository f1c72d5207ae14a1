#include "genie/nn/fused_norm.h"

#include "genie/ops/kernel_query.h"

namespace genie::nn {

const torch::nn::LayerNormImpl* fusable_norm(const torch::nn::LayerNormImpl& norm, const at::Tensor& x,
                                             const at::Tensor& weight) {
  const auto dtype = x.scalar_type();
  const bool fits = (dtype == at::kFloat || dtype == at::kDouble) && weight.scalar_type() == dtype &&
                    norm.weight.defined() && norm.weight.scalar_type() == dtype &&
                    ops::has_kernel("genie::norm_linear", x);
  return fits ? &norm : nullptr;
}

const torch::nn::LayerNormImpl* fusable_norm(const torch::nn::AnyModule& norm, const at::Tensor& x,
                                             const at::Tensor& weight) {
  const auto* layer_norm = dynamic_cast<const torch::nn::LayerNormImpl*>(norm.ptr().get());
  return layer_norm ? fusable_norm(*layer_norm, x, weight) : nullptr;
}

}  // namespace genie::nn
