#pragma once

#include "genie/ops/cuda/device.cuh"

namespace genie::ops {

/// The normal distribution function at x.
template <class Acc>
__device__ Acc normal_cdf(Acc x) {
  return Acc(0.5) * std::erfc(-x * static_cast<Acc>(0.70710678118654752440));
}

/// Adds bias (width) to each row of `in`, in place, and writes its GELU with erf to `out`.
template <class T>
__global__ void add_bias_and_gelu(T* in, const T* bias, T* out, int64_t count, int64_t width) {
  using Acc = at::opmath_type<T>;
  const int64_t step = static_cast<int64_t>(gridDim.x) * block_threads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * block_threads + threadIdx.x; i < count; i += step) {
    const Acc x = static_cast<Acc>(in[i]) + static_cast<Acc>(bias[i % width]);
    in[i] = static_cast<T>(x);
    out[i] = static_cast<T>(x * normal_cdf(x));
  }
}

/// GELU once more, to `out`, and its derivative, by which `grad` is multiplied in place.
template <class T>
__global__ void gelu_once_more(const T* in, T* out, T* grad, int64_t count) {
  using Acc = at::opmath_type<T>;
  const int64_t step = static_cast<int64_t>(gridDim.x) * block_threads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * block_threads + threadIdx.x; i < count; i += step) {
    const Acc x = static_cast<Acc>(in[i]), cdf = normal_cdf(x);
    const Acc density = std::exp(Acc(-0.5) * x * x) * static_cast<Acc>(0.39894228040143267794);
    out[i] = static_cast<T>(x * cdf);
    grad[i] = static_cast<T>(static_cast<Acc>(grad[i]) * (cdf + x * density));
  }
}

}  // namespace genie::ops
