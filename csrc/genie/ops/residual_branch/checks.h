#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace genie::ops {

// The checks of the ops in residual_branch.h, shared by all backends: ValueError for shapes and devices that
// don't fit, TypeError for dtypes.

void check_norm_linear(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                       const at::Tensor& weight, const std::optional<at::Tensor>& bias);

void check_linear_residual(const at::Tensor& x, const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias, const at::Tensor& residual);

void check_norm_mlp_residual(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                             const at::Tensor& weight1, const at::Tensor& bias1, const at::Tensor& weight2,
                             const at::Tensor& bias2);

}  // namespace genie::ops
