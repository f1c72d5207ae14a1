#pragma once

// What the kernels of all backends compute with torch's operations.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/native_layer_norm.h>

#include <optional>

namespace genie::ops {

inline at::Tensor as_rows(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}).contiguous(); }

struct Normalized {
  at::Tensor value, mean, rstd;
};

inline Normalized normalize(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            double eps) {
  const auto [value, mean, rstd] = at::native_layer_norm(x, {x.size(1)}, weight, bias, eps);
  return {value, mean, rstd};
}

/// residual + linear(x)
inline at::Tensor add_linear(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& weight,
                             const std::optional<at::Tensor>& bias) {
  const at::Tensor start = residual.contiguous();
  const at::Tensor out = bias ? start + *bias : start.clone();
  out.view({-1, weight.size(0)}).addmm_(as_rows(x), weight.t());
  return out;
}

}  // namespace genie::ops
