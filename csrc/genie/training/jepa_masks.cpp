#include "genie/training/jepa_masks.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "genie/core/random.h"

namespace genie::training {
namespace {

/// Numbers that depend on nothing but the seed, on every platform.
class Draws {
 public:
  explicit Draws(uint64_t seed) : state_(seed) {}
  double uniform() {
    state_ += 0x9e3779b97f4a7c15ull;
    return static_cast<double>(splitmix64(state_) >> 11) * 0x1p-53;
  }
  /// One of 0 .. count - 1.
  int64_t index(int64_t count) {
    return std::min(count - 1, static_cast<int64_t>(uniform() * static_cast<double>(count)));
  }

 private:
  uint64_t state_;
};

int64_t side(double length, int64_t most) { return std::clamp<int64_t>(std::llround(length), 1, most); }

/// hidden[id] of one clip.
std::vector<char> draw_hidden(const config::JepaMaskConfig& config, const nn::GridSize& grid, double scale,
                              int64_t wanted, Draws draws) {
  std::vector<char> hidden(static_cast<size_t>(grid.count()), 0);
  const int64_t frames = side(config.temporal_scale * static_cast<double>(grid.frames), grid.frames);
  const double area = scale * static_cast<double>(grid.height * grid.width);
  int64_t covered = 0;
  while (covered < wanted) {
    const double aspect = config.min_aspect + (config.max_aspect - config.min_aspect) * draws.uniform();
    const int64_t height = side(std::sqrt(area * aspect), grid.height);
    const int64_t width = side(std::sqrt(area / aspect), grid.width);
    const int64_t t0 = draws.index(grid.frames - frames + 1), y0 = draws.index(grid.height - height + 1),
                  x0 = draws.index(grid.width - width + 1);
    for (int64_t y = y0; y < y0 + height; ++y) {
      for (int64_t x = x0; x < x0 + width; ++x) {
        for (int64_t t = t0; t < t0 + frames && covered < wanted; ++t) {
          char& token = hidden[static_cast<size_t>((t * grid.height + y) * grid.width + x)];
          covered += token == 0;
          token = 1;
        }
      }
    }
  }
  return hidden;
}

}  // namespace

std::vector<JepaMask> draw_jepa_masks(const config::JepaMaskConfig& config, const nn::GridSize& grid,
                                      const std::vector<int64_t>& samples, uint64_t seed,
                                      const at::Device& device) {
  const int64_t tokens = grid.count(), count = static_cast<int64_t>(samples.size());
  TORCH_CHECK_VALUE(tokens >= 2, "jepa masks: a clip of one token leaves nothing to predict it from");
  const int64_t wanted =
      std::clamp<int64_t>(std::llround(config.hidden_share * static_cast<double>(tokens)), 1, tokens - 1);
  std::vector<JepaMask> masks;
  const double scales[] = {config.short_scale, config.long_scale};
  for (uint64_t kind = 0; kind < 2; ++kind) {
    if (scales[kind] <= 0) continue;
    const at::Tensor seen = at::empty({count, tokens - wanted}, at::kLong);
    const at::Tensor hidden = at::empty({count, wanted}, at::kLong);
    auto* next_seen = seen.mutable_data_ptr<int64_t>();
    auto* next_hidden = hidden.mutable_data_ptr<int64_t>();
    for (const int64_t sample : samples) {
      const auto chosen =
          draw_hidden(config, grid, scales[kind], wanted, Draws(mix_seed(seed, Stream::mask, sample, kind)));
      for (int64_t id = 0; id < tokens; ++id)
        *(chosen[static_cast<size_t>(id)] ? next_hidden : next_seen)++ = id;
    }
    masks.push_back({seen.to(device), hidden.to(device)});
  }
  return masks;
}

}  // namespace genie::training
