#include "genie/training/step.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <map>

#include "genie/core/random.h"
#include "genie/nn/autocast.h"
#include "genie/nn/dropout.h"
#include "genie/training/schedule.h"

namespace genie::training {

bool StepResult::finite() const { return std::isfinite(loss) && std::isfinite(gradient_norm); }

OrdinaryStep::OrdinaryStep(Phase& phase, AdamW& optimizer, const Processes& processes, const StepPlace& place,
                           uint64_t seed)
    : phase_(phase),
      optimizer_(optimizer),
      processes_(processes),
      reducer_(phase.model(), processes),
      place_(place),
      seed_(seed) {}

StepResult OrdinaryStep::take(int64_t step, const std::vector<Part>& parts) {
  std::vector<TensorMap> inputs;
  for (const Part& part : parts) inputs.push_back(phase_.inputs(part));
  const at::Tensor totals = totals_of(inputs);
  StepResult result;
  std::map<std::string, at::Tensor> sums;  // over the parts
  for (size_t i = 0; i < parts.size(); ++i) {
    std::vector<uint64_t> seeds;
    for (const int64_t sample : parts[i].samples) seeds.push_back(mix_seed(seed_, Stream::dropout, sample));
    PartResult part;
    {
      nn::AutocastScope autocast(place_.device.type(), place_.dtype);
      nn::SampleSeedsScope random(std::move(seeds));
      part = phase_.loss(inputs[i], totals);
    }
    if (i + 1 == parts.size()) reducer_.before_last_backward(part.loss);
    torch::autograd::backward({part.loss}, {});
    result.loss += part.loss.item<double>();
    for (const auto& [name, value] : part.values) sums[name] = sums.count(name) ? sums[name] + value : value;
  }
  result.values = {sums.begin(), sums.end()};
  add_up(result);
  const config::PhaseConfig& settings = phase_.settings();
  result.gradient_norm = optimizer_.clip_gradients(settings.clip_gradient_norm);
  if (result.finite()) optimizer_.step(learning_rate(settings, step), weight_decay(settings, step));
  optimizer_.zero_grad();
  return result;
}

/// Over all parts and processes.
at::Tensor OrdinaryStep::totals_of(const std::vector<TensorMap>& inputs) const {
  at::Tensor totals;
  for (const TensorMap& part : inputs) {
    const at::Tensor further = phase_.totals(part);
    totals = totals.defined() ? totals + further : further;
  }
  processes_.sum(totals);
  return totals;
}

/// Makes one process's shares of loss and figures the whole batch's.
void OrdinaryStep::add_up(StepResult& result) const {
  if (processes_.alone()) return;
  std::vector<at::Tensor> values = {
      at::scalar_tensor(result.loss, at::TensorOptions(at::kDouble).device(place_.device))};
  for (const auto& item : result.values) values.push_back(item.second.to(at::kDouble));
  at::Tensor all = at::stack(values);
  processes_.sum(all);
  result.loss = all[0].item<double>();
  for (size_t i = 0; i < result.values.size(); ++i)
    result.values[i].second = all[static_cast<int64_t>(i) + 1];
}

}  // namespace genie::training
