#pragma once

#include <memory>

#include "genie/training/phase.h"

namespace genie::training {

// One source file a phase; make_phase() chooses among them.
std::unique_ptr<Phase> make_tokenizer_phase(models::Genie genie);
std::unique_ptr<Phase> make_latent_action_phase(models::Genie genie);
std::unique_ptr<Phase> make_dynamics_phase(models::Genie genie);
std::unique_ptr<Phase> make_cotrain_phase(models::Genie genie);

}  // namespace genie::training
