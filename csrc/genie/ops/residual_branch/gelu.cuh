#pragma once

#include "genie/ops/cuda/device.cuh"

namespace genie::ops {

/// The normal distribution function at x.
template <class Acc>
__device__ Acc normal_cdf(Acc x) {
  return Acc(0.5) * std::erfc(-x * static_cast<Acc>(0.70710678118654752440));
}

/// Adds bias (width) to each row of `in`, in place, and writes its GELU with erf to `out`.
template <class Acc>
__global__ void add_bias_and_gelu(Acc* in, const Acc* bias, Acc* out, int64_t count, int64_t width) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * block_threads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * block_threads + threadIdx.x; i < count; i += step) {
    const Acc x = in[i] + bias[i % width];
    in[i] = x;
    out[i] = x * normal_cdf(x);
  }
}

/// GELU once more, to `out`, and its derivative, by which `grad` is multiplied in place.
template <class Acc>
__global__ void gelu_once_more(const Acc* in, Acc* out, Acc* grad, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * block_threads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * block_threads + threadIdx.x; i < count; i += step) {
    const Acc x = in[i], cdf = normal_cdf(x);
    const Acc density = std::exp(Acc(-0.5) * x * x) * static_cast<Acc>(0.39894228040143267794);
    out[i] = x * cdf;
    grad[i] *= cdf + x * density;
  }
}

}  // namespace genie::ops
