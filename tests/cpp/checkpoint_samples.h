#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <limits>
#include <string>

#include "genie/core/error.h"
#include "genie/training/checkpoint.h"

namespace genie::testing {

inline bool same(const training::TensorMap& a, const training::TensorMap& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, tensor] : a) {
    const auto other = b.find(name);
    if (other == b.end() || other->second.scalar_type() != tensor.scalar_type() ||
        !at::equal(other->second, tensor))
      return false;
  }
  return true;
}

inline bool same(const training::CheckpointData& a, const training::CheckpointData& b) {
  return same(a.model, b.model) && same(a.optimizer, b.optimizer) && a.state == b.state &&
         a.config_yaml == b.config_yaml;
}

/// Contents that follow from the step alone; `size` elements a tensor.
inline training::CheckpointData sample_checkpoint(int64_t step, int64_t size = 64) {
  training::CheckpointData data;
  const at::Tensor values = at::arange(size, at::kFloat) + static_cast<double>(step);
  data.model = {{"encoder.weight", values}, {"codebook", values.to(at::kHalf).view({2, -1})}};
  data.optimizer = {{"encoder.weight.m", values * 0.5}, {"step", at::full({}, step, at::kLong)}};
  data.state.phase = "tokenizer";
  data.state.step = step;
  data.state.seed = 0xfedcba9876543210ull;
  data.state.loader_position = 3 * step;
  data.state.config_hash = "0123abcd";
  data.state.numbers = {{"best_loss", 0.1 + static_cast<double>(step)},
                        {"worst_loss", std::numeric_limits<double>::infinity()}};
  data.state.texts = {{"note", "\"quoted\" \xc3\xa4"}};
  data.config_yaml = "training:\n  seed: 0\n";
  return data;
}

/// The message of the genie::Error that `action` throws; "no error" if it throws none.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace genie::testing
