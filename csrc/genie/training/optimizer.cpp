#include "genie/training/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "genie/core/error.h"
#include "genie/training/module_state.h"

namespace genie::training {
namespace {

bool is_matrix(const std::string& name, const at::Tensor& parameter) {
  return parameter.dim() == 2 && name.find("position") == std::string::npos &&
         name.find("codebook") == std::string::npos;
}

std::vector<at::Tensor> values(const TensorMap& tensors) {
  std::vector<at::Tensor> result;
  for (const auto& item : tensors) result.push_back(item.second);
  return result;
}

}  // namespace

AdamW::AdamW(const torch::nn::Module& model, const config::PhaseConfig& config, const Processes& processes,
             bool shard)
    : config_(config), processes_(processes), sharded_(shard && !processes.alone()) {
  for (const auto& item : model.named_parameters()) {
    if (!item.value().requires_grad()) continue;
    Entry entry;
    entry.name = item.key();
    entry.parameter = item.value();
    entry.decays = is_matrix(entry.name, entry.parameter);
    entries_.push_back(std::move(entry));
  }
  if (sharded_) assign_owners();
  for (Entry& entry : entries_) {
    if (!mine(entry)) continue;
    entry.first_moment = at::zeros_like(entry.parameter);
    entry.second_moment = at::zeros_like(entry.parameter);
    entry.steps = at::zeros({}, entry.parameter.options().dtype(at::kFloat));
  }
}

// The largest first, each to the process that has least.
void AdamW::assign_owners() {
  std::vector<size_t> order(entries_.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [this](size_t a, size_t b) {
    return entries_[a].parameter.numel() > entries_[b].parameter.numel();
  });
  std::vector<int64_t> load(processes_.size(), 0);
  for (const size_t i : order) {
    const auto least = std::min_element(load.begin(), load.end());
    entries_[i].owner = least - load.begin();
    *least += entries_[i].parameter.numel();
  }
}

std::vector<at::Tensor> AdamW::gradients() const {
  std::vector<at::Tensor> all;
  for (const Entry& entry : entries_) {
    if (entry.parameter.grad().defined()) all.push_back(entry.parameter.grad());
  }
  return all;
}

double AdamW::clip_gradients(double max_norm) {
  at::NoGradGuard no_grad;
  const std::vector<at::Tensor> all = gradients();
  if (all.empty()) return 0;
  const double norm = at::stack(at::_foreach_norm(all)).norm().item<double>();
  if (max_norm > 0 && norm > max_norm) at::_foreach_mul_(all, max_norm / (norm + 1e-6));
  return norm;
}

AdamW::Group AdamW::group(bool decays) const {
  // A parameter without a gradient (a part the loss did not reach) stays as it is.
  Group group;
  for (const Entry& entry : entries_) {
    if (entry.decays != decays || !entry.parameter.grad().defined() || !mine(entry)) continue;
    group.parameters.push_back(entry.parameter);
    group.gradients.push_back(entry.parameter.grad());
    group.first_moments.push_back(entry.first_moment);
    group.second_moments.push_back(entry.second_moment);
    group.steps.push_back(entry.steps);
  }
  return group;
}

void AdamW::step_group(double learning_rate, bool decays, double weight_decay) {
  const Group g = group(decays);
  if (g.parameters.empty()) return;
  at::_foreach_add_(g.steps, 1);
  at::_fused_adamw_(g.parameters, g.gradients, g.first_moments, g.second_moments, {}, g.steps, learning_rate,
                    config_.beta1, config_.beta2, weight_decay, config_.epsilon, /*amsgrad=*/false,
                    /*maximize=*/false);
}

void AdamW::step(double learning_rate, std::optional<double> weight_decay) {
  at::NoGradGuard no_grad;
  step_group(learning_rate, false, 0);
  step_group(learning_rate, true, weight_decay.value_or(config_.weight_decay));
  if (!sharded_) return;
  for (int64_t owner = 0; owner < processes_.size(); ++owner) {
    std::vector<at::Tensor> updated;
    for (const Entry& entry : entries_) {
      if (entry.owner == owner) updated.push_back(entry.parameter);
    }
    processes_.broadcast(updated, owner);
  }
}

at::Tensor AdamW::clip_and_step(const at::Tensor& loss, double max_norm, const at::Tensor& learning_rate) {
  at::NoGradGuard no_grad;
  const std::vector<at::Tensor> all = gradients();
  check(!all.empty() && !sharded_, "AdamW: a step on the device needs gradients, in one process");
  const at::Tensor norm = at::stack(at::_foreach_norm(all)).norm();
  if (max_norm > 0) {
    const at::Tensor within = (max_norm / (norm.to(at::kDouble) + 1e-6)).to(at::kFloat);
    at::_foreach_mul_(all, within.masked_fill(norm.gt(max_norm).logical_not(), 1));
  }
  const at::Tensor finite = at::isfinite(loss).logical_and(at::isfinite(norm)).to(at::kFloat);
  const at::Tensor stopped = 1 - finite;
  for (const bool decays : {false, true}) {
    const Group g = group(decays);
    if (g.parameters.empty()) continue;
    at::_foreach_add_(g.steps, finite);
    at::_fused_adamw_(g.parameters, g.gradients, g.first_moments, g.second_moments, {}, g.steps,
                      learning_rate, config_.beta1, config_.beta2, decays ? config_.weight_decay : 0,
                      config_.epsilon, /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{},
                      /*found_inf=*/stopped);
  }
  return norm;
}

void AdamW::zero_grad() {
  for (Entry& entry : entries_) entry.parameter.mutable_grad() = at::Tensor();
}

// Those of an entry kept elsewhere are places to receive them.
TensorMap AdamW::tensors_of(const Entry& entry) const {
  const bool here = mine(entry);
  return {{entry.name + ".exp_avg", here ? entry.first_moment : at::empty_like(entry.parameter)},
          {entry.name + ".exp_avg_sq", here ? entry.second_moment : at::empty_like(entry.parameter)},
          {entry.name + ".step",
           here ? entry.steps : at::empty({}, entry.parameter.options().dtype(at::kFloat))}};
}

TensorMap AdamW::state() const {
  at::NoGradGuard no_grad;
  TensorMap state;
  for (const Entry& entry : entries_) {
    TensorMap tensors = tensors_of(entry);
    if (sharded_) processes_.broadcast(values(tensors), entry.owner);
    if (!processes_.first()) continue;
    for (auto& [name, tensor] : tensors) state[name] = mine(entry) ? tensor : tensor.to(at::kCPU);
  }
  return state;
}

void AdamW::load_state(const TensorMap& state) {
  at::NoGradGuard no_grad;
  TensorMap all;
  if (processes_.first()) {
    for (const Entry& entry : entries_) {
      // What others keep passes through this process's main memory only.
      const auto host = at::TensorOptions(at::kFloat);
      all.merge(mine(entry)
                    ? tensors_of(entry)
                    : TensorMap{{entry.name + ".exp_avg", at::empty(entry.parameter.sizes(), host)},
                                {entry.name + ".exp_avg_sq", at::empty(entry.parameter.sizes(), host)},
                                {entry.name + ".step", at::empty({}, host)}});
    }
    copy_tensors(state, all, "optimizer");
  }
  if (processes_.alone()) return;
  for (const Entry& entry : entries_) {
    const TensorMap tensors = tensors_of(entry);
    if (processes_.first() && !mine(entry)) {
      for (const auto& [name, tensor] : tensors) at::Tensor(tensor).copy_(all.at(name));
    }
    processes_.broadcast(values(tensors), 0);
  }
}

int64_t AdamW::bytes() const {
  int64_t bytes = 0;
  for (const Entry& entry : entries_) {
    if (mine(entry))
      bytes += static_cast<int64_t>(entry.first_moment.nbytes() + entry.second_moment.nbytes());
  }
  return bytes;
}

}  // namespace genie::training
