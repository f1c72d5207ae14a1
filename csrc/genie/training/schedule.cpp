#include "genie/training/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "genie/core/error.h"

namespace genie::training {
namespace {

// How far `step` is on the way from step `begin` (0) to step `end` (1).
double share(int64_t step, int64_t begin, int64_t end) {
  if (step <= begin || end <= begin) return 0;
  return std::min(1.0, static_cast<double>(step - begin) / static_cast<double>(end - begin));
}

}  // namespace

double learning_rate(const config::PhaseConfig& phase, int64_t step) {
  check(step >= 1, "learning rate: steps count from 1, got ", step);
  const double peak = phase.learning_rate;
  const double last = phase.final_learning_rate;
  if (step < phase.warmup_steps)
    return peak * static_cast<double>(step) / static_cast<double>(phase.warmup_steps);

  const int64_t top = std::max<int64_t>(phase.warmup_steps, 1);
  if (phase.schedule == "constant") return peak;
  if (phase.schedule == "linear") return std::lerp(peak, last, share(step, top, phase.steps));
  if (phase.schedule == "cosine") {
    const double angle = std::numbers::pi * share(step, top, phase.steps);
    return last + (peak - last) * 0.5 * (1 + std::cos(angle));
  }
  if (phase.schedule == "wsd") {
    const auto falling = std::llround(phase.decay_fraction * static_cast<double>(phase.steps));
    const int64_t begin = std::max<int64_t>(top, phase.steps - falling);
    return std::lerp(peak, last, share(step, begin, phase.steps));
  }
  throw Error(concat("schedule: expected constant, linear, cosine or wsd, got ", phase.schedule));
}

double weight_decay(const config::PhaseConfig& phase, int64_t step) {
  if (phase.final_weight_decay < 0) return phase.weight_decay;
  const double angle = std::numbers::pi * share(step, 1, phase.steps);
  return phase.final_weight_decay +
         (phase.weight_decay - phase.final_weight_decay) * 0.5 * (1 + std::cos(angle));
}

}  // namespace genie::training
