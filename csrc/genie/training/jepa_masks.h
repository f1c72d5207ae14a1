#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "genie/config/jepa_config.h"
#include "genie/nn/packed_tokens.h"

namespace genie::training {

/// Which of a clip's tokens are seen and which are to be predicted, token ids in rising order.
struct JepaMask {
  at::Tensor seen;    ///< int64 (samples, K)
  at::Tensor hidden;  ///< int64 (samples, N - K)
};

/// Draws the masks of `samples`, one a kind of block (short, long) that the configuration uses. Blocks of
/// `scale` of a frame through `temporal_scale` of the clip, at random places and of random aspect, are laid
/// until hidden_share of the tokens are covered; of the last one only as many columns of time as are wanted.
/// So each clip has exactly as many hidden tokens as any other. A mask depends on the seed and the sample's
/// global number alone, however a batch is cut.
std::vector<JepaMask> draw_jepa_masks(const config::JepaMaskConfig& config, const nn::GridSize& grid,
                                      const std::vector<int64_t>& samples, uint64_t seed,
                                      const at::Device& device);

}  // namespace genie::training
