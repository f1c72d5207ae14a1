#pragma once

#include <cstdint>
#include <string>

#include "genie/config/fields.h"

namespace genie::config {

/// Which clips are left out of training and validation because nothing can be learned from them.
struct FilterConfig {
  using IsSection = void;
  bool enabled = false;
  double min_motion = 0.0005;
  double max_cut = 0.35;
  double min_brightness = 0.02;
  std::string classifier;
  double classifier_threshold = 0.5;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("enabled", s.enabled, "drop clips that stand still, are cut or are black, and report how many", {});
    visit("min_motion", s.min_motion,
          "least mean absolute difference between neighbouring frames, pixels in [0,1]", between(0, 1));
    visit("max_cut", s.max_cut,
          "greatest mean absolute difference between two neighbouring frames, above it is a cut",
          between(0, 1));
    visit("min_brightness", s.min_brightness, "least mean brightness of a clip, pixels in [0,1]",
          between(0, 1));
    visit("classifier", s.classifier,
          "TorchScript file of a further filter: uint8 frames (T,3,H,W) as float in [0,1] to one score a "
          "frame; '' for none",
          {});
    visit("classifier_threshold", s.classifier_threshold, "clips whose mean score is below are dropped",
          between(-1e30, 1e30));
  }
};

/// Where clips come from and what is done to them before a model sees them.
struct DataConfig {
  using IsSection = void;
  std::string path;
  std::string validation_path;
  double validation_fraction = 0.1;
  int64_t split_seed = 0;
  int64_t num_frames = 16;
  int64_t stride = 1;
  double fps = 0;
  int64_t height = 64;
  int64_t width = 64;
  double random_crop = 0;
  bool horizontal_flip = false;
  int64_t num_workers = 2;
  int64_t prefetch = 4;
  FilterConfig filter;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("path", s.path, "HDF5 file with the video to learn from (docs/data_format.md)", {});
    visit("validation_path", s.validation_path,
          "HDF5 file to validate on; '' holds out validation_fraction of path's episodes", {});
    visit("validation_fraction", s.validation_fraction, "share of the episodes that is held out",
          between(0, 0.9));
    visit("split_seed", s.split_seed, "seed of the split into training and validation episodes", at_least(0));
    visit("num_frames", s.num_frames, "T, frames a clip", between(2, 1024));
    visit("stride", s.stride, "every stride-th recorded frame is used; stays 1 where fps is set",
          between(1, 1024));
    visit("fps", s.fps, "frames a second a clip has (the file's own rate must be a multiple); 0 takes stride",
          at_least(0));
    visit("height", s.height, "pixels; frames of another size are resized", between(4, 4096));
    visit("width", s.width, "pixels; frames of another size are resized", between(4, 4096));
    visit("random_crop", s.random_crop,
          "share of height and width that a random crop may cut away before resizing, the same for a whole "
          "clip; 0 is off",
          between(0, 0.9));
    visit("horizontal_flip", s.horizontal_flip, "mirror half of the clips; breaks left/right actions", {});
    visit("num_workers", s.num_workers, "threads that read and decode", between(1, 256));
    visit("prefetch", s.prefetch, "batches held ready", between(1, 1024));
    visit("filter", s.filter, "quality filter", {});
  }
};

}  // namespace genie::config
