#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "genie/core/random.h"

namespace genie::training {

/// Uniform numbers in [0,1) for each sample, (samples, shape...), that depend on the run's seed, the purpose
/// and the sample's global number alone: the same however a batch is cut into parts and processes.
at::Tensor sample_uniform(const std::vector<int64_t>& samples, at::IntArrayRef shape, uint64_t seed,
                          Stream stream);

}  // namespace genie::training
