#pragma once

#include <torch/nn/module.h>

#include <string>

#include "genie/training/safetensors.h"

namespace genie::training {

/// Parameters and buffers by name (the module's own tensors, not copies).
TensorMap module_state(const torch::nn::Module& module);

/// Copies `from` into the tensors of `to`. Throws Error naming `what` and every name that is missing,
/// unexpected or of another shape; then nothing is copied.
void copy_tensors(const TensorMap& from, const TensorMap& to, const std::string& what);

}  // namespace genie::training
