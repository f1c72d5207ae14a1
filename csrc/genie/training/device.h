#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "genie/config/config.h"

namespace genie::training {

/// The device a configuration asks for; "auto" is CUDA where there is one. Throws Error for a CUDA device
/// that is missing.
c10::Device training_device(const config::TrainingConfig& config);

/// The dtype of matrix multiplications. Throws Error for bfloat16 on a CPU without bfloat16 instructions,
/// where it would be a hundred times slower than float32.
c10::ScalarType training_dtype(const config::TrainingConfig& config, const c10::Device& device);

/// The most memory this process has held so far, of the host.
double peak_host_memory_gib();

}  // namespace genie::training
