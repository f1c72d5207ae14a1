#include "genie/training/phase.h"

#include <ATen/ATen.h>

#include "genie/core/error.h"
#include "genie/training/phases.h"

namespace genie::training {

TensorMap Phase::inputs(const Part& part) {
  if (part.video.defined()) return {{"video", part.video}};
  return {{"tokens", part.tokens}, {"actions", part.actions}};
}

at::Tensor Phase::totals(const TensorMap& inputs) const {
  const at::Tensor& any = inputs.begin()->second;  // each has a row a sample
  return at::full({1}, any.size(0), any.options().dtype(at::kDouble));
}

at::Tensor share_of(double part, const at::Tensor& totals, int64_t i) {
  return at::full({}, part, totals.options()).div_(totals[i]).to(at::kFloat);
}

std::vector<std::string> phase_names(const config::Config& config) {
  if (config.training.cotrain.steps > 0) return {"tokenizer", "cotrain"};
  return {"tokenizer", "latent_action", "dynamics"};
}

std::vector<std::string> models_of_phase(const std::string& phase) {
  if (phase == "cotrain") return {"latent_action", "dynamics"};
  return {phase};
}

const config::PhaseConfig& settings_of_phase(const config::TrainingConfig& training,
                                             const std::string& phase) {
  if (phase == "tokenizer") return training.tokenizer;
  if (phase == "latent_action") return training.latent_action;
  if (phase == "cotrain") return training.cotrain;
  return phase == "jepa" ? training.jepa : training.dynamics;
}

std::unique_ptr<Phase> make_phase(const std::string& name, models::Genie genie) {
  if (name == "tokenizer") return make_tokenizer_phase(std::move(genie));
  if (name == "latent_action") return make_latent_action_phase(std::move(genie));
  if (name == "dynamics") return make_dynamics_phase(std::move(genie));
  if (name == "cotrain") return make_cotrain_phase(std::move(genie));
  throw Error("unknown phase '" + name + "'; allowed: tokenizer, latent_action, dynamics, cotrain, all");
}

}  // namespace genie::training
