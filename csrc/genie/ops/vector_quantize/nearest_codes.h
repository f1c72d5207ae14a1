#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

#include "genie/ops/cpu/cpu_kernel.h"

namespace genie::ops {

/// Contiguous x (count, channels) and codebook (codes, channels) of one dtype.
struct NearestCodesTask {
  at::ScalarType dtype;
  int64_t count, codes, channels;
  const void* x;
  const void* codebook;
  int64_t* indices;
  void* quantized;
};

extern CpuKernel<void(const NearestCodesTask&)> nearest_codes;

}  // namespace genie::ops
