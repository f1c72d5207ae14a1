#include "genie/training/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "genie/core/error.h"
#include "genie/training/module_state.h"

namespace genie::training {
namespace {

bool decays(const std::string& name, const at::Tensor& parameter) {
  return parameter.dim() == 2 && name.find("position") == std::string::npos &&
         name.find("codebook") == std::string::npos;
}

}  // namespace

AdamW::AdamW(const torch::nn::Module& model, const config::PhaseConfig& config) : config_(config) {
  groups_[0].weight_decay = config.weight_decay;
  for (const auto& item : model.named_parameters()) {
    if (!item.value().requires_grad()) continue;
    Group& group = groups_[decays(item.key(), item.value()) ? 0 : 1];
    group.names.push_back(item.key());
    group.parameters.push_back(item.value());
    group.first_moments.push_back(at::zeros_like(item.value()));
    group.second_moments.push_back(at::zeros_like(item.value()));
    group.steps.push_back(at::zeros({}, item.value().options().dtype(at::kFloat)));
  }
}

std::vector<at::Tensor> AdamW::gradients() const {
  std::vector<at::Tensor> gradients;
  for (const Group& group : groups_) {
    for (const at::Tensor& parameter : group.parameters) {
      if (parameter.grad().defined()) gradients.push_back(parameter.grad());
    }
  }
  return gradients;
}

double AdamW::clip_gradients(double max_norm) {
  at::NoGradGuard no_grad;
  const std::vector<at::Tensor> all = gradients();
  if (all.empty()) return 0;
  const double norm = at::stack(at::_foreach_norm(all)).norm().item<double>();
  if (max_norm > 0 && norm > max_norm) at::_foreach_mul_(all, max_norm / (norm + 1e-6));
  return norm;
}

void AdamW::step(double learning_rate, std::optional<double> weight_decay) {
  at::NoGradGuard no_grad;
  if (weight_decay) groups_[0].weight_decay = *weight_decay;
  for (Group& group : groups_) {
    // A parameter without a gradient (a part the loss did not reach) stays as it is.
    std::vector<at::Tensor> parameters, gradients, first, second, steps;
    for (size_t i = 0; i < group.parameters.size(); ++i) {
      if (!group.parameters[i].grad().defined()) continue;
      parameters.push_back(group.parameters[i]);
      gradients.push_back(group.parameters[i].grad());
      first.push_back(group.first_moments[i]);
      second.push_back(group.second_moments[i]);
      steps.push_back(group.steps[i]);
    }
    if (parameters.empty()) continue;
    at::_foreach_add_(steps, 1);
    at::_fused_adamw_(parameters, gradients, first, second, {}, steps, learning_rate, config_.beta1,
                      config_.beta2, group.weight_decay, config_.epsilon, /*amsgrad=*/false,
                      /*maximize=*/false);
  }
}

void AdamW::zero_grad() {
  for (Group& group : groups_) {
    for (at::Tensor& parameter : group.parameters) parameter.mutable_grad() = at::Tensor();
  }
}

TensorMap AdamW::state() const {
  TensorMap state;
  for (const Group& group : groups_) {
    for (size_t i = 0; i < group.names.size(); ++i) {
      state[group.names[i] + ".exp_avg"] = group.first_moments[i];
      state[group.names[i] + ".exp_avg_sq"] = group.second_moments[i];
      state[group.names[i] + ".step"] = group.steps[i];
    }
  }
  return state;
}

void AdamW::load_state(const TensorMap& state) { copy_tensors(state, this->state(), "optimizer"); }

}  // namespace genie::training
