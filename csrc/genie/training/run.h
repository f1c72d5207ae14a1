#pragma once

#include <string>
#include <vector>

#include "genie/config/config.h"
#include "genie/models/genie.h"
#include "genie/training/trainer.h"

namespace genie::training {

// A run directory holds config.yaml and a folder a phase: <phase>/metrics.jsonl, <phase>/checkpoints/.

/// Trains `phase` ("tokenizer", "latent_action", "dynamics", "cotrain", "all" of these that the configuration
/// trains, one after the other, or "jepa", which stands apart) in run directory `out`. Phases before the
/// first one trained are loaded from there. `process_group` names a group of torch.distributed whose
/// processes all call this with the same arguments and train together. Throws Error for anything the user can
/// mend.
Outcome train(const config::Config& config, const std::string& out, const std::string& phase, bool resume,
              const TrainerHooks& hooks, const std::string& process_group = "");

/// The models of a run directory, each from its newest checkpoint, in evaluation mode. Phases not trained yet
/// are an Error unless `allow_untrained`; then their models keep their random start, and `untrained` names
/// these.
models::Genie load_genie(const std::string& run_directory, bool allow_untrained = false,
                         std::vector<std::string>* untrained = nullptr);

/// Writes the models as a run directory, which load_genie reads and training resumes at step 0 of each phase.
/// Throws Error where there is a run already.
void save_genie(models::Genie& genie, const std::string& run_directory);

/// What a training run will take, without running it: parameters a model, and memory a phase.
std::string dry_run(const config::Config& config);

}  // namespace genie::training
