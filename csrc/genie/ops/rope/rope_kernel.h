#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

#include "genie/ops/cpu/cpu_kernel.h"

namespace genie::ops {

/// Tokens whose channels are to be rotated. A token's heads lie one after another; its place is given by
/// strides (in elements) over batch and token. The result is contiguous.
struct RopeTask {
  at::ScalarType dtype;
  int64_t batch, tokens, heads, head_dim;
  const void* x;
  int64_t batch_stride, token_stride;
  void* out;
  bool transpose;
};

/// Token ids in a grid of height x width a frame; `batch_stride` 0 if all samples share them.
struct GridPositions {
  const int64_t* ids;
  int64_t batch_stride;
  int64_t height, width;
};

extern CpuKernel<void(const RopeTask&, const GridPositions&)> rotate_3d;

/// Tables of (tokens, head_dim), float or double as the task computes in.
extern CpuKernel<void(const RopeTask&, const void* cos, const void* sin)> rotate_register;

}  // namespace genie::ops
