#pragma once

#include <cstdint>
#include <vector>

#include "genie/config/data_config.h"
#include "genie/data/clip_dataset.h"
#include "genie/data/episode_split.h"
#include "genie/data/video_file.h"

namespace genie::data {

/// What the filter's thresholds look at, pixels in [0,1]; entry t belongs to recorded frame t. Frames outside
/// the measured ranges have zeros.
struct FrameMeasures {
  std::vector<float> brightness;  ///< mean over the frame
  std::vector<float> change;      ///< mean absolute difference from frame t to t + 1 of the same range
};

/// Measures every frame of the ranges once, streaming over the file with `num_threads` threads.
FrameMeasures measure_frames(const VideoFile& file, const std::vector<FrameRange>& ranges,
                             int64_t num_threads);

/// The starts of the clips worth learning from: config.num_frames frames, `stride` apart. A clip is dropped,
/// in this order, as black (the mean brightness of its frames is below min_brightness), cut (two neighbouring
/// recorded frames between its first and last differ by more than max_cut), still (the mean of those
/// differences is below min_motion) or classified (the classifier's mean score of its frames is below
/// classifier_threshold). Throws Error where nothing is left.
std::vector<int64_t> filter_clips(const VideoFile& file, const std::vector<FrameRange>& ranges,
                                  const std::vector<int64_t>& starts, int64_t stride,
                                  const config::DataConfig& config, FilterReport& report);

/// One score for each frame that a clip of `starts` shows (zeros elsewhere) from the TorchScript file
/// config.filter.classifier: it takes float (T,3,H,W) in [0,1], resized to the configured size, and returns T
/// scores.
std::vector<float> classify_frames(const VideoFile& file, const std::vector<int64_t>& starts, int64_t stride,
                                   const config::DataConfig& config);

}  // namespace genie::data
