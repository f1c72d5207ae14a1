#include "genie/training/recorded_step.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>

#include "genie/core/error.h"
#include "genie/nn/autocast.h"
#include "genie/training/schedule.h"

namespace genie::training {

RecordedStep::RecordedStep(Phase& phase, AdamW& optimizer, const StepPlace& place,
                           std::unique_ptr<Recording> recording)
    : phase_(phase),
      optimizer_(optimizer),
      place_(place),
      recording_(std::move(recording)),
      learning_rate_(at::zeros({}, phase.model().parameters().at(0).options().dtype(at::kFloat))) {
  phase_.keep_to_device();
}

StepResult RecordedStep::take(int64_t step, const std::vector<Part>& parts) {
  TORCH_INTERNAL_ASSERT(parts.size() == 1);
  place_inputs(phase_.inputs(parts[0]));
  learning_rate_.fill_(learning_rate(phase_.settings(), step));
  perform([this] { compute(); });
  // Copies: what after_step() makes of them outlives the next replay.
  std::vector<at::Tensor> statistics;
  for (const at::Tensor& tensor : statistics_) statistics.push_back(tensor.clone());
  phase_.set_statistics(statistics);
  return read_report();
}

void RecordedStep::place_inputs(const TensorMap& inputs) {
  for (const auto& [name, tensor] : inputs) {
    at::Tensor& placed = inputs_[name];
    if (!placed.defined()) {
      placed = tensor.clone();
      continue;
    }
    TORCH_CHECK(tensor.sizes() == placed.sizes() && tensor.scalar_type() == placed.scalar_type(),
                "a recorded step's ", name, " must stay ", placed.scalar_type(), placed.sizes(), ", got ",
                tensor.scalar_type(), tensor.sizes());
    placed.copy_(tensor, /*non_blocking=*/true);
  }
}

void RecordedStep::perform(const Recording::Work& work) {
  const int64_t number = taken_++;
  if (number < kRehearsals) {
    recording_->rehearse(work);
    return;
  }
  if (number == kRehearsals) {
    try {
      recording_->record(work);
    } catch (const c10::Error& error) {
      throw Error(concat(phase_.name(), ": the training step could not be recorded as a CUDA graph (",
                         error.what_without_backtrace(), "); set training.cuda_graph=false"));
    }
  }
  recording_->replay();
}

void RecordedStep::compute() {
  PartResult result;
  {
    // Ends within what is recorded, so that no cast of a weight is kept from one step to the next.
    nn::AutocastScope autocast(place_.device.type(), place_.dtype);
    result = phase_.loss(inputs_, phase_.totals(inputs_));
  }
  torch::autograd::backward({result.loss}, {});
  at::NoGradGuard no_grad;
  const at::Tensor loss = result.loss.detach();
  const at::Tensor norm =
      optimizer_.clip_and_step(loss, phase_.settings().clip_gradient_norm, learning_rate_);
  optimizer_.zero_grad();
  std::vector<at::Tensor> report = {loss.to(at::kDouble), norm.to(at::kDouble)};
  names_.clear();
  for (const auto& [name, value] : result.values) {
    names_.push_back(name);
    report.push_back(value.detach().to(at::kDouble));
  }
  report_ = at::stack(report);
  statistics_ = phase_.take_statistics();
}

StepResult RecordedStep::read_report() {
  const at::Tensor report = report_.to(at::kCPU);
  StepResult result;
  result.loss = report[0].item<double>();
  result.gradient_norm = report[1].item<double>();
  for (size_t i = 0; i < names_.size(); ++i)
    result.values.emplace_back(names_[i], report[static_cast<int64_t>(i) + 2]);
  return result;
}

}  // namespace genie::training
