#pragma once

#include <cstdint>
#include <vector>

#include "genie/config/data_config.h"
#include "genie/data/clip_dataset.h"

namespace genie::data {

/// A run of neighbouring recorded frames, [begin, end), of one episode.
struct FrameRange {
  int64_t begin = 0;
  int64_t end = 0;
};

/// The frames a split may show, in the file's order. Validation gets round(validation_fraction * E) of the E
/// episodes, at least one and at most E - 1, chosen by a permutation seeded with split_seed; a single episode
/// is cut in time instead and its last part validates. Nothing is held out where the fraction is 0 or where
/// validation_path names a file of its own: then training and validation both mean all of the given file.
/// `path` is for messages.
std::vector<FrameRange> split_episodes(const std::vector<int64_t>& episode_ends,
                                       const config::DataConfig& config, Split split,
                                       const std::string& path);

}  // namespace genie::data
