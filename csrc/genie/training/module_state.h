#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <string>

#include "genie/training/safetensors.h"

namespace genie::training {

/// Parameters and buffers by name (the module's own tensors, not copies).
TensorMap module_state(const torch::nn::Module& module);

/// Tells weights apart: a hash of the names and bytes of all parameters and buffers, begun with `seed`.
uint64_t weights_hash(const torch::nn::Module& module, uint64_t seed = 0);

/// Copies `from` into the tensors of `to`. Throws Error naming `what` and every name that is missing,
/// unexpected or of another shape; then nothing is copied.
void copy_tensors(const TensorMap& from, const TensorMap& to, const std::string& what);

}  // namespace genie::training
