#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "genie/config/data_config.h"
#include "genie/data/video_file.h"

namespace genie::data {

enum class Split { training, validation, all };

/// A clip as the models take it.
struct Clip {
  at::Tensor video;    ///< uint8 (T,H,W,3), resized to the configured resolution
  at::Tensor actions;  ///< int64 (T-1), the recorded action between frames t and t+1 (the last one of a
                       ///< stride); undefined without
  int64_t index = 0;   ///< of the clip in the dataset
};

/// What the quality filter did.
struct FilterReport {
  int64_t kept = 0, still = 0, cut = 0, black = 0, classified = 0;
};

/// All clips of T frames of a file's split: windows that lie inside one episode, at every start frame.
/// Episodes are split by a seeded permutation, so that training and validation never share an episode.
class ClipDataset {
 public:
  ClipDataset(std::shared_ptr<const VideoFile> file, const config::DataConfig& config, Split split);

  int64_t size() const;
  /// Clip `index`; random crop and flip are drawn from `augmentation_seed` (none where it is 0).
  Clip get(int64_t index, uint64_t augmentation_seed = 0) const;
  int64_t first_frame(int64_t index) const;  ///< in the file
  int64_t stride() const;                    ///< recorded frames from one frame of a clip to the next
  const FilterReport& filter_report() const;
  const VideoFile& file() const;
  /// Indices of `count` clips spread evenly over the split, for validation (fewer where there are fewer).
  std::vector<int64_t> spread(int64_t count) const;

 private:
  std::shared_ptr<const VideoFile> file_;
  config::DataConfig config_;
  int64_t stride_ = 1;
  std::vector<int64_t> starts_;
  FilterReport report_;
};

}  // namespace genie::data
