// Under autocast what is multiplied is cast, once a scope for a weight; the rest is float32.

#include <torch/library.h>

#include <optional>

#include "genie/ops/autograd_helpers.h"
#include "genie/ops/residual_branch/residual_branch.h"

namespace genie::ops {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

at::Tensor norm_linear_autocast(const at::Tensor& x, const at::Tensor& norm_weight,
                                const at::Tensor& norm_bias, double eps, const at::Tensor& weight,
                                const OptionalTensor& bias) {
  const NoAutocast no_autocast;
  return norm_linear(autocast_widen(x), autocast_widen(norm_weight), autocast_widen(norm_bias), eps,
                     autocast_cast(weight), autocast_cast(bias));
}

at::Tensor linear_residual_autocast(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                                    const at::Tensor& residual) {
  const NoAutocast no_autocast;
  return linear_residual(autocast_cast(x), autocast_cast(weight), autocast_cast(bias),
                         autocast_widen(residual));
}

at::Tensor norm_mlp_residual_autocast(const at::Tensor& x, const at::Tensor& norm_weight,
                                      const at::Tensor& norm_bias, double eps, const at::Tensor& weight1,
                                      const at::Tensor& bias1, const at::Tensor& weight2,
                                      const at::Tensor& bias2) {
  const NoAutocast no_autocast;
  return norm_mlp_residual(autocast_widen(x), autocast_widen(norm_weight), autocast_widen(norm_bias), eps,
                           autocast_cast(weight1), autocast_cast(bias1), autocast_cast(weight2),
                           autocast_cast(bias2));
}

void register_for_autocast(torch::Library& m) {
  m.impl("norm_linear", norm_linear_autocast);
  m.impl("linear_residual", linear_residual_autocast);
  m.impl("norm_mlp_residual", norm_mlp_residual_autocast);
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, Autocast, m) { register_for_autocast(m); }
TORCH_LIBRARY_IMPL(genie, AutocastCPU, m) { register_for_autocast(m); }

}  // namespace genie::ops
