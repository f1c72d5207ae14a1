#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>

#include "genie/training/processes.h"

namespace c10d {
class Reducer;
}

namespace genie::training {

/// Adds up the gradients of all processes, bucket by bucket while backward goes on (torch's c10d::Reducer).
/// Does nothing for a process that is alone.
class GradientReducer {
 public:
  GradientReducer(const torch::nn::Module& model, const Processes& processes);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// To be called before the backward of a step's last part: that one also adds up what the parts before it
  /// have left in the gradients.
  void before_last_backward(const at::Tensor& loss);

 private:
  std::unique_ptr<c10d::Reducer> reducer_;
};

}  // namespace genie::training
