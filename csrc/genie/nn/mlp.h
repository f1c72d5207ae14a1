#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <string>

#include "genie/nn/fused_norm.h"
#include "genie/nn/linear.h"

namespace genie::nn {

/// Stochastic depth (Huang et al. 2016, arXiv 1603.09382): in training drops a sample's branch with
/// probability `drop_prob` and scales the others by 1 / (1 - drop_prob).
class DropPathImpl : public torch::nn::Module {
 public:
  explicit DropPathImpl(double drop_prob = 0);
  at::Tensor forward(const at::Tensor& x);
  bool active() const { return drop_prob_ > 0 && is_training(); }

 private:
  double drop_prob_;
};
TORCH_MODULE(DropPath);

/// Two linear layers with an activation between ("gelu" with erf, "silu", "relu") and dropout after each.
class STMLPImpl : public torch::nn::Module {
 public:
  STMLPImpl(int64_t in_features, int64_t hidden_features, int64_t out_features,
            std::string act_layer = "gelu", double drop = 0);
  at::Tensor forward(const at::Tensor& x);
  /// x + drop_path(forward(norm(x))); by one op where there is one for it.
  template <class Norm>
  at::Tensor add_to(const at::Tensor& x, Norm& norm, DropPathImpl& drop_path) {
    const auto* layer_norm = act_layer_ == "gelu" ? fusable_norm(norm, x, fc1_->weight) : nullptr;
    if (layer_norm && !drop_path.active() && !(drop_ > 0 && is_training())) return fused(x, *layer_norm);
    return x + drop_path.forward(forward(norm.forward(x)));
  }
  const at::Tensor& weight() const { return fc1_->weight; }  ///< (hidden_features,in_features)

 private:
  at::Tensor fused(const at::Tensor& x, const torch::nn::LayerNormImpl& norm);

  std::string act_layer_;
  double drop_;
  Linear fc1_{nullptr}, fc2_{nullptr};
};
TORCH_MODULE(STMLP);

}  // namespace genie::nn
