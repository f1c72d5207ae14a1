#include "genie/data/quality_filter.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "genie/core/error.h"

namespace genie::data {
namespace {

constexpr int64_t block_bytes = int64_t{4} << 20;  // of frames, read at once

double mean_value(const uint8_t* frame, int64_t size) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += frame[i];
  return static_cast<double>(sum) / (255.0 * static_cast<double>(size));
}

double mean_difference(const uint8_t* a, const uint8_t* b, int64_t size) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += a[i] > b[i] ? a[i] - b[i] : b[i] - a[i];
  return static_cast<double>(sum) / (255.0 * static_cast<double>(size));
}

void measure_block(const VideoFile& file, const FrameRange& block, bool with_next, FrameMeasures& measures) {
  const auto frames = file.read_frames(block.begin, block.end - block.begin + (with_next ? 1 : 0));
  const int64_t size = file.height() * file.width() * 3;
  const auto* data = frames.const_data_ptr<uint8_t>();
  for (int64_t t = block.begin; t < block.end; ++t, data += size) {
    measures.brightness[t] = static_cast<float>(mean_value(data, size));
    if (t + 1 < block.end || with_next) {
      measures.change[t] = static_cast<float>(mean_difference(data, data + size, size));
    }
  }
}

}  // namespace

FrameMeasures measure_frames(const VideoFile& file, const std::vector<FrameRange>& ranges,
                             int64_t num_threads) {
  FrameMeasures measures{std::vector<float>(file.num_frames(), 0.f),
                         std::vector<float>(file.num_frames(), 0.f)};
  struct Block {
    FrameRange frames;
    bool with_next;
  };
  std::vector<Block> blocks;
  const int64_t step = std::max<int64_t>(1, block_bytes / (file.height() * file.width() * 3));
  for (const auto& range : ranges) {
    for (int64_t begin = range.begin; begin < range.end; begin += step) {
      const int64_t end = std::min(begin + step, range.end);
      blocks.push_back({{begin, end}, end < range.end});
    }
  }
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  std::exception_ptr error;
  const auto work = [&] {
    try {
      for (size_t i; (i = next++) < blocks.size();) {
        measure_block(file, blocks[i].frames, blocks[i].with_next, measures);
      }
    } catch (...) {
      next = blocks.size();
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int64_t i = 1; i < num_threads; ++i) threads.emplace_back(work);
    work();
  }
  if (error) std::rethrow_exception(error);
  return measures;
}

std::vector<int64_t> filter_clips(const VideoFile& file, const std::vector<FrameRange>& ranges,
                                  const std::vector<int64_t>& starts, int64_t stride,
                                  const config::DataConfig& config, FilterReport& report) {
  const auto& filter = config.filter;
  const auto measures = measure_frames(file, ranges, config.num_workers);
  // Sums and cuts up to a frame make a clip's mean two look-ups.
  const int64_t count = file.num_frames();
  std::vector<double> change(count + 1, 0);
  std::vector<int64_t> cuts(count + 1, 0);
  for (int64_t t = 0; t < count; ++t) {
    change[t + 1] = change[t] + measures.change[t];
    cuts[t + 1] = cuts[t] + (measures.change[t] > filter.max_cut);
  }
  std::vector<int64_t> kept;
  for (const int64_t start : starts) {
    const int64_t pairs = (config.num_frames - 1) * stride;
    double brightness = 0;
    for (int64_t i = 0; i < config.num_frames; ++i) brightness += measures.brightness[start + i * stride];
    if (brightness / static_cast<double>(config.num_frames) < filter.min_brightness) {
      ++report.black;
    } else if (cuts[start + pairs] > cuts[start]) {
      ++report.cut;
    } else if ((change[start + pairs] - change[start]) / static_cast<double>(pairs) < filter.min_motion) {
      ++report.still;
    } else {
      kept.push_back(start);
    }
  }
  if (!filter.classifier.empty() && !kept.empty()) {
    const auto scores = classify_frames(file, kept, stride, config);
    const auto rejected = std::erase_if(kept, [&](int64_t start) {
      double score = 0;
      for (int64_t i = 0; i < config.num_frames; ++i) score += scores[start + i * stride];
      return score / static_cast<double>(config.num_frames) < filter.classifier_threshold;
    });
    report.classified += static_cast<int64_t>(rejected);
  }
  report.kept = static_cast<int64_t>(kept.size());
  check(!kept.empty(), "the quality filter leaves no clip of '", file.path(), "': of ", starts.size(), ", ",
        report.black, " are black (data.filter.min_brightness = ", filter.min_brightness, "), ", report.cut,
        " have a cut (max_cut = ", filter.max_cut, "), ", report.still,
        " stand still (min_motion = ", filter.min_motion, "), ", report.classified,
        " were rejected by the classifier (classifier_threshold = ", filter.classifier_threshold,
        "): loosen what applies or set data.filter.enabled to false");
  return kept;
}

}  // namespace genie::data
