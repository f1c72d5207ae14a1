#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace genie::training {

/// What a phase of training needs, besides tensors, to go on where it stopped.
struct TrainState {
  std::string phase;
  int64_t step = 0;                          ///< optimizer steps done
  uint64_t seed = 0;                         ///< of everything random in the run
  int64_t loader_position = 0;               ///< batches the loader has given out
  std::string config_hash;                   ///< of the configuration that produced the weights
  std::map<std::string, double> numbers;     ///< more of what the trainer counts; may be infinite or NaN
  std::map<std::string, std::string> texts;  ///< more of what the trainer remembers, e.g. generator states

  bool operator==(const TrainState&) const = default;
};

/// The state as JSON; numbers keep every bit. Throws Error for a text that is not UTF-8.
std::string to_json(const TrainState& state);

/// Reads to_json's text. Throws Error, naming `path`, unless every field is there with its type and none
/// besides.
TrainState parse_train_state(const std::string& json, const std::string& path);

}  // namespace genie::training
