#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/normalization.h>

namespace genie::nn {

/// `norm` where the ops of ops/residual_branch can take it together with x and `weight`: a LayerNorm with
/// weight and bias, one dtype (float32 or float64), a device they have a kernel for. Else null.
const torch::nn::LayerNormImpl* fusable_norm(const torch::nn::LayerNormImpl& norm, const at::Tensor& x,
                                             const at::Tensor& weight);
const torch::nn::LayerNormImpl* fusable_norm(const torch::nn::AnyModule& norm, const at::Tensor& x,
                                             const at::Tensor& weight);

}  // namespace genie::nn
