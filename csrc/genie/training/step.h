#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "genie/training/gradient_reducer.h"
#include "genie/training/optimizer.h"
#include "genie/training/phase.h"
#include "genie/training/processes.h"

namespace genie::training {

/// What a training step has found, of the whole batch.
struct StepResult {
  double loss = 0, gradient_norm = 0;  ///< the norm before clipping
  std::vector<std::pair<std::string, at::Tensor>> values;

  bool finite() const;
};

/// From a batch to updated parameters: loss, gradients, clipping, AdamW. What is done once a step beside that
/// (Phase::after_step, logging) is the Trainer's.
class Step {
 public:
  virtual ~Step() = default;
  /// Step number `step`, counted from 1, on the parts of a batch. Where the result is not finite, nothing is
  /// updated.
  virtual StepResult take(int64_t step, const std::vector<Part>& parts) = 0;
};

/// Where and in which precision a phase's steps are computed.
struct StepPlace {
  c10::Device device;
  c10::ScalarType dtype;  ///< of the matrix multiplications
};

/// The step of any phase, operation by operation, in any number of parts and processes.
class OrdinaryStep : public Step {
 public:
  /// `seed` is the run's. All that is referred to must live as long as this.
  OrdinaryStep(Phase& phase, AdamW& optimizer, const Processes& processes, const StepPlace& place,
               uint64_t seed);
  StepResult take(int64_t step, const std::vector<Part>& parts) override;

 private:
  at::Tensor totals_of(const std::vector<TensorMap>& inputs) const;
  void add_up(StepResult& result) const;

  Phase& phase_;
  AdamW& optimizer_;
  Processes processes_;
  GradientReducer reducer_;
  StepPlace place_;
  uint64_t seed_;
};

}  // namespace genie::training
