#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace genie::ops {

/// The pieces of a pre-norm transformer block, x + branch(norm(x)), each in one op. They keep less for the
/// backward pass than their parts would (norms and activations are computed again, in pieces that stay in the
/// processor's cache) and write no intermediate result that is only read once.
///
/// All tensors share one dtype, float32 or float64. Or what is multiplied is narrower, bfloat16 or float16
/// beside float32 (so autocast has it): weights and biases of linear maps, the x of linear_residual, and the
/// result of norm_linear; norms, activations and what x and residual add up to stay float32. TypeError
/// otherwise. x is (..., dim); ValueError for weights that don't fit. Double backward isn't supported.

/// linear(layer_norm(x)): x (..., dim), weight (out, dim), bias (out) or none; returns (..., out).
at::Tensor norm_linear(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                       double eps, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

/// residual + linear(x): x (..., dim), weight (out, dim), bias (out) or none, residual (..., out).
at::Tensor linear_residual(const at::Tensor& x, const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias, const at::Tensor& residual);

/// x + linear2(gelu(linear1(layer_norm(x)))), gelu with erf: weight1 (hidden, dim), weight2 (dim, hidden).
at::Tensor norm_mlp_residual(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                             double eps, const at::Tensor& weight1, const at::Tensor& bias1,
                             const at::Tensor& weight2, const at::Tensor& bias2);

}  // namespace genie::ops
