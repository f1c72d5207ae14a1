#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "genie/config/config.h"
#include "genie/models/dynamics_model.h"

namespace genie::inference {

/// Tokens of `total` that are still masked after step `step` (1-based) of `steps`: the schedule of MaskGIT
/// (arXiv 2202.04200), none after the last.
int64_t num_masked(const std::string& schedule, int64_t step, int64_t steps, int64_t total);

/// One refinement of a frame: samples the masked tokens from logits (B,N,K) / temperature (after top-k and
/// top-p), and leaves the `keep_masked` least confident of them masked. Confidence is the sampled token's
/// probability, or random.
struct Refined {
  at::Tensor tokens;  ///< int64 (B,N): sampled where masked, the former ones elsewhere
  at::Tensor mask;    ///< bool (B,N)
};
Refined refine(const at::Tensor& logits_BNK, const at::Tensor& tokens_BN, const at::Tensor& mask_BN,
               int64_t keep_masked, const config::InferenceConfig& config, uint64_t seed);

/// Generates frames token by token with MaskGIT, staying in token space. Past frames' temporal keys and
/// values are cached, so a refinement computes the current frame only; once the window of the model's
/// num_frames is full it slides by one frame a frame, and the cache is made anew because positions are
/// learned. prompt int64 (B,T0,N), actions int64 (B,T0-1+K): those between the prompt's frames, then one for
/// each of K new frames. Returns int64 (B,K,N). The same seed gives the same frames.
at::Tensor generate(models::DynamicsModel& model, const at::Tensor& prompt_BTN, const at::Tensor& actions_BT,
                    const config::InferenceConfig& config, uint64_t seed);

}  // namespace genie::inference
