#pragma once

#include <cstdint>

#include "genie/ops/cpu/cpu_kernel.h"

namespace genie::ops {

/// GELU with erf (Hendrycks and Gimpel 2016, arXiv 1606.08415) of rows of `width` floats at `in`, to each of
/// which `bias` (width) is added first, in place.
extern CpuKernel<void(float* in, const float* bias, float* out, int64_t rows, int64_t width)> gelu_forward;

/// GELU once more, to `out`, and its derivative, by which `grad` is multiplied in place; what comes out is
/// summed over rows and added to `sums` (width). Both share the one exponential that each of them needs.
extern CpuKernel<void(const float* in, float* out, float* grad, int64_t rows, int64_t width, float* sums)>
    gelu_again;

}  // namespace genie::ops
