#pragma once

#include <memory>
#include <string>

#include "genie/models/jepa.h"
#include "genie/training/phase.h"
#include "genie/training/safetensors.h"

namespace genie::training {

/// Phase jepa: masked latent prediction on clips of config.data's size. It stands apart from the phases of a
/// Genie: it needs none of them, and none needs it. Throws Error where clips don't divide into tubelets or
/// jepa.initial_weights don't fit.
std::unique_ptr<Phase> make_jepa_phase(const config::Config& config, const c10::Device& device);

/// The newest checkpoint of phase jepa in a run directory: encoder.*, predictor.*, target_encoder.*.
TensorMap load_jepa_weights(const std::string& run_directory);

}  // namespace genie::training
