#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace genie::nn {

/// Runs `function(input)` without keeping its intermediate results; backward runs it again (Chen et al. 2016,
/// arXiv 1604.06174). Random numbers drawn inside (dropout) are the same both times. Parameters used inside
/// must be given as `parameters`; they get their gradients as usual.
at::Tensor checkpoint(std::function<at::Tensor(const at::Tensor&)> function, const at::Tensor& input,
                      const std::vector<at::Tensor>& parameters);

}  // namespace genie::nn
