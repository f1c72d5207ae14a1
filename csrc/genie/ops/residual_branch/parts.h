#pragma once

// What the kernels of all backends compute with torch's operations.

#include <ATen/core/Tensor.h>
#include <ATen/ops/native_layer_norm.h>

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

}  // namespace genie::ops
