#pragma once

#include <torch/nn/modules/linear.h>

#include "genie/ops/linear/linear.h"

namespace genie::nn {

/// torch::nn::Linear whose bfloat16 products are as fast as float32's on a processor without instructions for
/// them, where torch's are many times slower.
class LinearImpl : public torch::nn::LinearImpl {
 public:
  using torch::nn::LinearImpl::LinearImpl;

  at::Tensor forward(const at::Tensor& x) {
    return ops::linear(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
  }
};
TORCH_MODULE(Linear);

}  // namespace genie::nn
