#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace genie::nn {

/// Runs `function(input)` without keeping its intermediate results; backward runs it again (Chen et al. 2016,
/// arXiv 1604.06174). Random numbers drawn inside (dropout) are the same both times. Parameters used inside
/// must be named by `parameters`, which is asked again in backward; they get their gradients as usual. Throws
/// in backward where other tensors have taken their place since.
at::Tensor checkpoint(std::function<at::Tensor(const at::Tensor&)> function, const at::Tensor& input,
                      std::function<std::vector<at::Tensor>()> parameters);

}  // namespace genie::nn
