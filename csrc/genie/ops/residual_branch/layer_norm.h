#pragma once

#include <cstdint>

#include "genie/ops/cpu/cpu_kernel.h"

namespace genie::ops {

/// Rows of `width` floats and their LayerNorm's weight (width), with each row's mean and 1/std.
struct LayerNormRows {
  const float* x;
  const float* weight;
  float* mean;
  float* inverse_std;
  int64_t rows;
  int64_t width;
};

/// Writes LayerNorm (Ba et al. 2016, arXiv 1607.06450) of the rows to `out`, and their mean and 1/std.
extern CpuKernel<void(const LayerNormRows&, const float* bias, float eps, float* out)> layer_norm;

/// From the gradient by layer_norm's results: writes that by x, plus `residual` (null: nothing), to `to_x`,
/// and adds those by weight and bias to `to_weight_and_bias` (2, width).
extern CpuKernel<void(const LayerNormRows&, const float* grad, const float* residual, float* to_x,
                      float* to_weight_and_bias)>
    layer_norm_gradient;

}  // namespace genie::ops
