// What training.cuda_graph refuses: the one place that decides it.

#include <vector>

#include "genie/core/error.h"
#include "genie/training/recorded_step.h"

namespace genie::training {
namespace {

struct NamedTransformer {
  std::string name;
  const config::TransformerConfig& config;
};

std::vector<NamedTransformer> transformers_of(const config::Config& config, const std::string& phase) {
  if (phase == "tokenizer")
    return {{"tokenizer.encoder", config.tokenizer.encoder}, {"tokenizer.decoder", config.tokenizer.decoder}};
  std::vector<NamedTransformer> found;
  if (phase == "latent_action" || phase == "cotrain") {
    found.push_back({"latent_action.encoder", config.latent_action.encoder});
    found.push_back({"latent_action.decoder", config.latent_action.decoder});
  }
  if (phase == "dynamics" || phase == "cotrain")
    found.push_back({"dynamics.transformer", config.dynamics.transformer});
  return found;
}

}  // namespace

void check_recordable(const config::Config& config, const std::string& phase, const c10::Device& device,
                      const Processes& processes) {
  const auto refuse = [](bool refused, const auto&... why) {
    check(!refused, "training.cuda_graph records a step on one GPU, as it is each time; ", why...,
          ", or set training.cuda_graph=false");
  };
  const config::PhaseConfig& settings = settings_of_phase(config.training, phase);
  refuse(!device.is_cuda(), "this run is on the CPU: give it a GPU (training.device=cuda)");
  refuse(!processes.alone(), "this run has ", processes.size(), " processes: start one");
  refuse(phase == "jepa", "phase jepa sorts tokens by masks that the host looks at: train another phase");
  refuse(settings.accumulation > 1, "phase ", phase, " computes its batches in ", settings.accumulation,
         " parts: set training.", phase, ".accumulation=1");
  refuse(settings.final_weight_decay >= 0, "phase ", phase,
         " changes its weight decay from step to step: set training.", phase, ".final_weight_decay=-1");
  for (const auto& [name, transformer] : transformers_of(config, phase)) {
    refuse(transformer.dropout > 0 || transformer.attention_dropout > 0 || transformer.drop_path > 0, name,
           " drops at random what the host draws for each sample: set its dropout, attention_dropout and "
           "drop_path to 0");
    refuse(transformer.gradient_checkpointing, name,
           " computes layers again by the state of a random generator: set its gradient_checkpointing=false");
    refuse(transformer.use_area_attention, name,
           " has areas whose layout the host makes: set its use_area_attention=false");
  }
}

}  // namespace genie::training
