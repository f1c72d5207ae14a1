#include "genie/data/transforms.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "genie/data/shuffle.h"

namespace genie::data {

at::Tensor resize_frames(const at::Tensor& frames, int64_t height, int64_t width) {
  if (frames.size(1) == height && frames.size(2) == width) return frames.contiguous();
  const auto planes = frames.permute({0, 3, 1, 2}).to(at::kFloat).contiguous();
  const auto resized = at::_upsample_bilinear2d_aa(planes, {height, width}, /*align_corners=*/false);
  return resized.round_().clamp_(0, 255).to(at::kByte).permute({0, 2, 3, 1}).contiguous();
}

at::Tensor augment_frames(const at::Tensor& frames, const config::DataConfig& config, uint64_t seed) {
  auto result = frames;
  RandomSequence random(seed);
  if (seed != 0 && config.random_crop > 0) {
    // One share for both sides keeps the aspect ratio.
    const double kept = 1 - config.random_crop * random.uniform();
    const int64_t height = std::max<int64_t>(1, std::llround(kept * static_cast<double>(frames.size(1))));
    const int64_t width = std::max<int64_t>(1, std::llround(kept * static_cast<double>(frames.size(2))));
    const int64_t top = random.below(frames.size(1) - height + 1);
    const int64_t left = random.below(frames.size(2) - width + 1);
    result = result.narrow(1, top, height).narrow(2, left, width);
  }
  result = resize_frames(result, config.height, config.width);
  if (seed != 0 && config.horizontal_flip && random.below(2) == 1) result = result.flip({2});
  return result;
}

}  // namespace genie::data
