#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "genie/config/config.h"

namespace genie::python {

/// What a caller may set otherwise than the configuration's inference section.
struct Sampling {
  std::optional<int64_t> steps, top_k;
  std::optional<double> temperature, top_p;
  std::optional<std::string> schedule, unmasking;

  /// The section with these in their place; throws Error naming the key that is out of range.
  config::InferenceConfig over(config::Config config) const {
    config::InferenceConfig& c = config.inference;
    c.steps = steps.value_or(c.steps);
    c.top_k = top_k.value_or(c.top_k);
    c.temperature = temperature.value_or(c.temperature);
    c.top_p = top_p.value_or(c.top_p);
    c.schedule = schedule.value_or(c.schedule);
    c.unmasking = unmasking.value_or(c.unmasking);
    config::validate(config);
    return c;
  }
};

}  // namespace genie::python
