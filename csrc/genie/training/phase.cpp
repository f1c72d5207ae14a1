#include "genie/training/phase.h"

#include "genie/core/error.h"
#include "genie/training/phases.h"

namespace genie::training {

const std::vector<std::string>& phase_names() {
  static const std::vector<std::string> names = {"tokenizer", "latent_action", "dynamics"};
  return names;
}

std::unique_ptr<Phase> make_phase(const std::string& name, models::Genie genie) {
  if (name == "tokenizer") return make_tokenizer_phase(std::move(genie));
  if (name == "latent_action") return make_latent_action_phase(std::move(genie));
  if (name == "dynamics") return make_dynamics_phase(std::move(genie));
  throw Error("unknown phase '" + name + "'; allowed: tokenizer, latent_action, dynamics, all");
}

}  // namespace genie::training
