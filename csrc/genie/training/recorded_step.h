#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "genie/config/config.h"
#include "genie/training/recording.h"
#include "genie/training/step.h"

namespace genie::training {

/// A step that is recorded once and then replayed (training.cuda_graph), so that a small model does not wait
/// for the host to launch its operations. The first steps rehearse; from the next on each copies its batch
/// into the recorded one's place, replays, and reads loss, norm and figures back at once. Updates the same
/// parameters and moments as OrdinaryStep does, to the same values but for rounding.
class RecordedStep : public Step {
 public:
  /// Steps that are rehearsed.
  static constexpr int64_t kRehearsals = 3;

  /// Of a phase and a configuration that check_recordable has passed. All that is referred to must live as
  /// long as this.
  RecordedStep(Phase& phase, AdamW& optimizer, const StepPlace& place, std::unique_ptr<Recording> recording);
  StepResult take(int64_t step, const std::vector<Part>& parts) override;

 private:
  void place_inputs(const TensorMap& inputs);
  void perform(const Recording::Work& work);
  /// What is recorded: from inputs_ and learning_rate_ to report_ and statistics_, and updated parameters.
  void compute();
  StepResult read_report();

  Phase& phase_;
  AdamW& optimizer_;
  StepPlace place_;
  std::unique_ptr<Recording> recording_;
  int64_t taken_ = 0;
  // These keep their place in memory.
  TensorMap inputs_;
  at::Tensor learning_rate_;            // float32 scalar
  at::Tensor report_;                   // float64: loss, norm, and the figures called names_
  std::vector<at::Tensor> statistics_;  // see Phase::take_statistics
  std::vector<std::string> names_;
};

/// Throws Error, with the reason and the remedy, where the steps of `phase` can't be recorded.
void check_recordable(const config::Config& config, const std::string& phase, const c10::Device& device,
                      const Processes& processes);

}  // namespace genie::training
