#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "genie/config/config.h"
#include "genie/models/dynamics_model.h"

namespace genie::inference {

/// Tokens of `total` that are still masked after step `step` (1-based) of `steps`: the schedule of MaskGIT
/// (arXiv 2202.04200), none after the last.
int64_t num_masked(const std::string& schedule, int64_t step, int64_t steps, int64_t total);

/// Decodes the frame that follows those in the cache, from all tokens masked, with the steps, temperature and
/// so on of `config`: int64 (B,N). `leading` int64 (B): the action that led to it. The cache keeps its
/// length; `seed` decides the draws.
at::Tensor decode_frame(models::DynamicsModel& model, const at::Tensor& leading_B, nn::TemporalCache& cache,
                        const config::InferenceConfig& config, uint64_t seed);

/// Generates frames token by token with MaskGIT, staying in token space; see TokenSession. prompt int64
/// (B,T0,N), actions int64 (B,T0-1+K): those between the prompt's frames, then one for each of K new frames.
/// Returns int64 (B,K,N). The same seed gives the same frames.
at::Tensor generate(models::DynamicsModel& model, const at::Tensor& prompt_BTN, const at::Tensor& actions_BT,
                    const config::InferenceConfig& config, uint64_t seed);

}  // namespace genie::inference
