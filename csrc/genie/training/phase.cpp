#include "genie/training/phase.h"

#include "genie/core/error.h"
#include "genie/training/phases.h"

namespace genie::training {

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
