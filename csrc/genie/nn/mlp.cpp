#include "genie/nn/mlp.h"

#include <ATen/ATen.h>

#include <utility>
#include <vector>

#include "genie/nn/dropout.h"
#include "genie/nn/input_check.h"
#include "genie/ops/residual_branch/residual_branch.h"

namespace genie::nn {

STMLPImpl::STMLPImpl(int64_t in_features, int64_t hidden_features, int64_t out_features,
                     std::string act_layer, double drop)
    : act_layer_(std::move(act_layer)), drop_(drop) {
  TORCH_CHECK_VALUE(act_layer_ == "gelu" || act_layer_ == "silu" || act_layer_ == "relu",
                    "STMLP: act_layer must be gelu, silu or relu, got '", act_layer_, "'");
  check_rates("STMLP", {{"drop", drop}});
  TORCH_CHECK_VALUE(in_features >= 1 && hidden_features >= 1 && out_features >= 1,
                    "STMLP: in_features, hidden_features and out_features must be at least 1, got ",
                    in_features, ", ", hidden_features, " and ", out_features);
  fc1_ = register_module("fc1", Linear(in_features, hidden_features));
  fc2_ = register_module("fc2", Linear(hidden_features, out_features));
}

at::Tensor STMLPImpl::forward(const at::Tensor& x) {
  check_input("STMLP", "x", x, fc1_->weight.size(1), fc1_->weight);
  at::Tensor hidden = fc1_->forward(x);
  hidden = act_layer_ == "gelu"   ? at::gelu(hidden)
           : act_layer_ == "silu" ? at::silu(hidden)
                                  : at::relu(hidden);
  hidden = fc2_->forward(nn::dropout(hidden, drop_, is_training()));
  return nn::dropout(hidden, drop_, is_training());
}

at::Tensor STMLPImpl::fused(const at::Tensor& x, const torch::nn::LayerNormImpl& norm) {
  return ops::norm_mlp_residual(x, norm.weight, norm.bias, norm.options.eps(), fc1_->weight, fc1_->bias,
                                fc2_->weight, fc2_->bias);
}

DropPathImpl::DropPathImpl(double drop_prob) : drop_prob_(drop_prob) {
  check_rates("DropPath", {{"drop_prob", drop_prob}});
}

at::Tensor DropPathImpl::forward(const at::Tensor& x) {
  if (!active()) return x;
  TORCH_CHECK_VALUE(x.dim() >= 1, "DropPath: expected samples (B,...), got a scalar");
  TORCH_CHECK_TYPE(x.is_floating_point(), "DropPath: expected a floating-point tensor, got ",
                   x.scalar_type());
  std::vector<int64_t> shape(x.dim(), 1);
  shape[0] = x.size(0);
  return x * keep_mask(shape, 1 - drop_prob_, x.options());
}

}  // namespace genie::nn
