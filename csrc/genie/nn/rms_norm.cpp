#include "genie/nn/rms_norm.h"

#include <ATen/ATen.h>
#include <torch/nn/modules/normalization.h>

#include <cmath>

namespace genie::nn {

RMSNormImpl::RMSNormImpl(int64_t dim, double eps) : eps_(eps) {
  TORCH_CHECK_VALUE(dim >= 1, "RMSNorm: dim must be at least 1, got ", dim);
  TORCH_CHECK_VALUE(eps >= 0 && std::isfinite(eps), "RMSNorm: eps must be finite and not negative, got ",
                    eps);
  weight_ = register_parameter("weight", at::ones({dim}));
}

at::Tensor RMSNormImpl::forward(const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() >= 1 && x.size(-1) == weight_.size(0), "RMSNorm: expected (...,", weight_.size(0),
                    "), got ", x.sizes());
  TORCH_CHECK_TYPE(x.is_floating_point(), "RMSNorm: expected a floating-point tensor, got ", x.scalar_type());
  TORCH_CHECK_VALUE(x.device() == weight_.device(), "RMSNorm: x is on ", x.device(), ", the module on ",
                    weight_.device());
  const auto dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor wide = x.to(dtype);
  const at::Tensor scale = at::rsqrt(wide.square().mean(-1, true) + eps_);
  return (wide * scale * weight_.to(dtype)).to(x.scalar_type());
}

void RMSNormImpl::rebind(const std::string&, const at::Tensor& tensor) { weight_ = tensor; }

void RMSNormImpl::pretty_print(std::ostream& stream) const {
  stream << "RMSNorm(" << weight_.size(0) << ", eps=" << eps_ << ")";
}

torch::nn::AnyModule make_norm(const std::string& type, int64_t dim, double eps) {
  TORCH_CHECK_VALUE(type == "layernorm" || type == "rmsnorm", "norm must be 'layernorm' or 'rmsnorm', got '",
                    type, "'");
  if (type == "rmsnorm") return torch::nn::AnyModule(RMSNorm(dim, eps));
  return torch::nn::AnyModule(torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim}).eps(eps)));
}

}  // namespace genie::nn
