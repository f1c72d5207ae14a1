#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace genie::ops {

/// torch's linear, x weight^T + bias, with autocast and derivatives: x (..., in), weight (out, in), bias
/// (out) or none. bfloat16 on a processor without instructions for it is multiplied as float32 (see
/// products.h).
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

}  // namespace genie::ops
