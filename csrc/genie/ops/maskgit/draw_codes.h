#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

#include "genie/ops/cpu/cpu_kernel.h"

namespace genie::ops {

/// The positions to draw a code for: row r of the logits (codes side by side) lies at logits + r *
/// row_stride.
struct DrawCodesTask {
  at::ScalarType dtype;
  int64_t count;        // positions to draw for
  const int64_t* rows;  // their rows
  const void* logits;
  int64_t row_stride;
  int64_t codes;
  const double* noise;  // by row, in [0, 1)
  double temperature;
  int64_t top_k;
  double top_p;
  int64_t* drawn;           // by row: the code, or -1 where the logits can't be normalised
  double* log_probability;  // by row: of the drawn code, at temperature 1
};

extern CpuKernel<void(const DrawCodesTask&)> draw_codes;

}  // namespace genie::ops
