#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <string>

namespace genie::nn {

/// Two linear layers with an activation between ("gelu" with erf, "silu", "relu") and dropout after each.
class STMLPImpl : public torch::nn::Module {
 public:
  STMLPImpl(int64_t in_features, int64_t hidden_features, int64_t out_features,
            std::string act_layer = "gelu", double drop = 0);
  at::Tensor forward(const at::Tensor& x);
  const at::Tensor& weight() const { return fc1_->weight; }  ///< (hidden_features,in_features)

 private:
  std::string act_layer_;
  double drop_;
  torch::nn::Linear fc1_{nullptr}, fc2_{nullptr};
};
TORCH_MODULE(STMLP);

/// Stochastic depth (Huang et al. 2016, arXiv 1603.09382): in training drops a sample's branch with
/// probability `drop_prob` and scales the others by 1 / (1 - drop_prob).
class DropPathImpl : public torch::nn::Module {
 public:
  explicit DropPathImpl(double drop_prob = 0);
  at::Tensor forward(const at::Tensor& x);

 private:
  double drop_prob_;
};
TORCH_MODULE(DropPath);

}  // namespace genie::nn
