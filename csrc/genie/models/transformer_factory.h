#pragma once

#include <torch/nn/module.h>

#include <cstdint>

#include "genie/config/model_config.h"
#include "genie/nn/patches.h"
#include "genie/nn/positional_embedding.h"
#include "genie/nn/st_transformer.h"

namespace genie::models {

/// The ST-transformer a configuration section describes, for frames of the grid's patches and
/// `further_tokens` behind them (an action's, say).
nn::STTransformer make_transformer(const config::TransformerConfig& config, int64_t num_frames,
                                   const nn::PatchGrid& grid, int64_t further_tokens = 0);

/// The positions that go with it: of places in the frame, and of frames where those are learned.
nn::CombinedPositionalEmbedding make_position(const config::TransformerConfig& config, int64_t num_frames,
                                              const nn::PatchGrid& grid);

/// Weights of every linear layer below `module` from N(0, 0.02), biases zero; the layers that write to the
/// residual stream (attention's proj, the MLP's fc2) divided by sqrt(2 * depth), after GPT-2.
void initialize_weights(torch::nn::Module& module, int64_t depth);

}  // namespace genie::models
