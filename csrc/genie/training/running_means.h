#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "genie/training/phase.h"

namespace genie::training {

/// Means of scalars over the steps since they were last taken; summed as tensors so that nothing waits for a
/// GPU.
class RunningMeans {
 public:
  void add(const std::string& name, const at::Tensor& value);
  Metrics take();

  /// What has been added up, as numbers for a checkpoint, and its inverse (other numbers are passed over).
  std::map<std::string, double> state() const;
  void load_state(const std::map<std::string, double>& numbers);

 private:
  std::map<std::string, std::pair<at::Tensor, int64_t>> sums_;
};

}  // namespace genie::training
