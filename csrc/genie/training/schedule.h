#pragma once

#include <cstdint>

#include "genie/config/config.h"

namespace genie::training {

/// The learning rate of optimizer step `step`, counted from 1 to phase.steps. The first warmup_steps rise
/// linearly, from learning_rate / warmup_steps to learning_rate; then it
///   constant: stays;
///   linear, cosine: falls to final_learning_rate at the last step;
///   wsd (warm-up, stable, decay; Hu et al. 2024): stays, and falls linearly in the last decay_fraction.
/// Steps after the last keep its value. Throws Error for a step below 1 or an unknown schedule.
double learning_rate(const config::PhaseConfig& phase, int64_t step);

/// AdamW's weight decay at optimizer step `step`, counted from 1: along a half cosine from weight_decay to
/// final_weight_decay at the last step, or weight_decay throughout where that is -1.
double weight_decay(const config::PhaseConfig& phase, int64_t step);

}  // namespace genie::training
