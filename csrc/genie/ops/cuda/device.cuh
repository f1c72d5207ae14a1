#pragma once

// What all kernels share. Device code stands in *.cuh files without a line of torch's tensors, so that two
// compilers take it: nvcc, and the host's with tests/cpp/cuda_emulation.h, under which the tests run the very
// same kernels.

#include <ATen/OpMathType.h>

#include <cmath>
#include <cstdint>
#include <limits>

#ifdef __CUDACC__
/// The block's dynamic shared memory as an array of Type.
#define GENIE_SHARED(Type, name)                                      \
  extern __shared__ __align__(16) unsigned char genie_shared_bytes[]; \
  Type* const name = reinterpret_cast<Type*>(genie_shared_bytes)
#elif !defined(GENIE_SHARED)
#error "device code needs nvcc, or tests/cpp/cuda_emulation.h included first"
#endif

namespace genie::ops {

constexpr int warp_size = 32;
constexpr int block_threads = 128;  // of every kernel
constexpr int block_warps = block_threads / warp_size;
constexpr unsigned all_lanes = 0xffffffffu;

__device__ inline int lane_index() { return static_cast<int>(threadIdx.x) % warp_size; }
__device__ inline int warp_index() { return static_cast<int>(threadIdx.x) / warp_size; }

/// The sum over a warp, in the same order in every lane: all get the same bits.
template <class Value>
__device__ Value warp_sum(Value value) {
  for (int step = warp_size / 2; step > 0; step /= 2) value += __shfl_xor_sync(all_lanes, value, step);
  return value;
}

template <class Value>
__device__ Value warp_max(Value value) {
  for (int step = warp_size / 2; step > 0; step /= 2) {
    const Value other = __shfl_xor_sync(all_lanes, value, step);
    value = other > value ? other : value;
  }
  return value;
}

template <class Value>
__host__ __device__ constexpr Value smaller(Value a, Value b) {
  return b < a ? b : a;
}
template <class Value>
__host__ __device__ constexpr Value larger(Value a, Value b) {
  return a < b ? b : a;
}

template <class Acc>
__host__ __device__ constexpr Acc lowest() {
  return -std::numeric_limits<Acc>::infinity();
}

}  // namespace genie::ops
