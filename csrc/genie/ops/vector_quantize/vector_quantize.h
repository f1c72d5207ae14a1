#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace genie::ops {

/// The nearest code of each vector (van den Oord et al. 2017, arXiv 1711.00937), without a matrix of
/// distances.
///
/// `x`: (M, D), `codebook`: (K, D) of the same dtype (float32, bfloat16 or float64 (on CUDA float16 too)), K
/// and D at least 1. Returns `quantized` (M, D), the codes, and `indices` (M) int64: the code at the least
/// squared distance, the lowest index among equals. Candidates too close for the fast arithmetic are compared
/// again in float64, so the result doesn't depend on rounding. A vector whose squared length isn't finite in
/// its precision (float32: longer than 1.8e19) gets code 0; such a code is never chosen.
///
/// The gradient of `quantized` goes to the codebook (summed per code) and not to x: the straight-through
/// estimator is the caller's.
std::tuple<at::Tensor, at::Tensor> vector_quantize(const at::Tensor& x, const at::Tensor& codebook);

void check_vector_quantize(const at::Tensor& x, const at::Tensor& codebook);

}  // namespace genie::ops
