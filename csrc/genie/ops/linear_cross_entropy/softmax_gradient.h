#pragma once

#include <cstdint>

#include "genie/ops/cpu/cpu_kernel.h"

namespace genie::ops {

/// Rows of logits and their targets.
struct SoftmaxRows {
  float* logits;  // becomes the gradient of the loss by the logits, if `gradient`
  const int64_t* targets;
  int64_t rows;
  int64_t classes;
  float smoothing;
  bool gradient;
};

struct SoftmaxSums {
  double loss = 0;
  int64_t correct = 0;  // rows whose target no other class beats
};

/// Cross-entropy of rows of logits, summed. Targets are not checked.
extern CpuKernel<SoftmaxSums(const SoftmaxRows&)> softmax_gradient;

}  // namespace genie::ops
