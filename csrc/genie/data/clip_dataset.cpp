#include "genie/data/clip_dataset.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "genie/core/error.h"
#include "genie/data/episode_split.h"
#include "genie/data/quality_filter.h"
#include "genie/data/transforms.h"

namespace genie::data {
namespace {

const char* split_name(Split split) {
  switch (split) {
    case Split::training:
      return "training split";
    case Split::validation:
      return "validation split";
    default:
      return "whole file";
  }
}

int64_t clip_stride(const VideoFile& file, const config::DataConfig& config) {
  if (config.fps == 0) return config.stride;
  check(std::isfinite(config.fps) && config.fps > 0, "data.fps must be at least 0, found ", config.fps);
  check(file.fps() > 0, "data.fps = ", config.fps, " needs a file that states its rate, and '", file.path(),
        "' has no attribute 'fps': add it, or set data.fps to 0 and choose data.stride");
  const double ratio = file.fps() / config.fps;
  const double stride = std::round(ratio);
  check(stride >= 1 && stride <= 1e9 && std::abs(ratio - stride) <= 1e-6 * ratio, "data.fps = ", config.fps,
        " does not divide the ", file.fps(), " frames a second of '", file.path(),
        "': choose a rate that the file's is a whole multiple of, or data.fps = 0 and data.stride");
  return static_cast<int64_t>(stride);
}

}  // namespace

ClipDataset::ClipDataset(std::shared_ptr<const VideoFile> file, const config::DataConfig& config, Split split)
    : file_(std::move(file)), config_(config) {
  check(file_ != nullptr, "a clip dataset needs a video file");
  check(config_.num_frames >= 2 && config_.stride >= 1 && config_.height >= 1 && config_.width >= 1,
        "clips need data.num_frames >= 2 and data.stride, height, width >= 1, found ", config_.num_frames,
        ", ", config_.stride, ", ", config_.height, ", ", config_.width);
  check(config_.random_crop >= 0 && config_.random_crop < 1,
        "data.random_crop must be at least 0 and below 1, found ", config_.random_crop);
  stride_ = clip_stride(*file_, config_);
  const auto ranges = split_episodes(file_->episode_ends(), config_, split, file_->path());
  const int64_t span =
      (config_.num_frames - 1) * stride_ + 1;  // recorded frames from a clip's first to its last
  int64_t longest = 0;
  for (const auto& range : ranges) {
    longest = std::max(longest, range.end - range.begin);
    for (int64_t start = range.begin; start + span <= range.end; ++start) starts_.push_back(start);
  }
  check(!starts_.empty(), "no clip of ", config_.num_frames, " frames (data.num_frames) at stride ", stride_,
        " fits: '", file_->path(), "' (", split_name(split), ") has ", ranges.size(), " episode",
        ranges.size() == 1 ? "" : "s", ", the longest of ", longest, " frames, and ", span,
        " are needed; take fewer frames, a smaller stride",
        split == Split::all ? "" : ", another validation_fraction", " or longer recordings");
  report_.kept = size();
  if (config_.filter.enabled) {
    report_ = {};
    starts_ = filter_clips(*file_, ranges, starts_, stride_, config_, report_);
  }
}

int64_t ClipDataset::size() const { return static_cast<int64_t>(starts_.size()); }

int64_t ClipDataset::first_frame(int64_t index) const {
  check(index >= 0 && index < size(), "clip ", index, " does not exist, there are ", size());
  return starts_[index];
}

Clip ClipDataset::get(int64_t index, uint64_t augmentation_seed) const {
  const int64_t first = first_frame(index);
  Clip clip;
  clip.index = index;
  clip.video =
      augment_frames(file_->read_frames(first, config_.num_frames, stride_), config_, augmentation_seed);
  if (file_->has_actions()) {
    // Of the stride's actions between two frames of the clip, the last: the one that led to the later frame.
    clip.actions = file_->actions()
                       .slice(0, first + stride_ - 1, first + (config_.num_frames - 1) * stride_, stride_)
                       .contiguous();
  }
  return clip;
}

int64_t ClipDataset::stride() const { return stride_; }
const FilterReport& ClipDataset::filter_report() const { return report_; }
const VideoFile& ClipDataset::file() const { return *file_; }

std::vector<int64_t> ClipDataset::spread(int64_t count) const {
  check(count >= 0, "the number of clips must not be negative, found ", count);
  count = std::min(count, size());
  std::vector<int64_t> indices(count);
  // The middles of `count` equal parts.
  for (int64_t i = 0; i < count; ++i) indices[i] = (2 * i + 1) * size() / (2 * count);
  return indices;
}

}  // namespace genie::data
