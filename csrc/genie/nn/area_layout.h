#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace genie::nn {

/// How a space-time grid is cut into areas: bands of frames times bands of rows (columns are not cut).
struct AreaSplits {
  int64_t spatial = 2;
  int64_t temporal = 2;
  int64_t count() const { return spatial * temporal; }
};

/// Throws ValueError unless both splits are 1..1024: memory is taken for each area, also for empty ones.
void check_splits(const char* module, const AreaSplits& splits);

/// The area of each token id (t height + row) width + column: min(t / max(1, frames / temporal), temporal -
/// 1) * spatial + min(row / max(1, height / spatial), spatial - 1). `ids` int64 of any shape; the result has
/// that shape. Without `frames` the grid ends with the latest frame among all ids.
at::Tensor area_ids(const at::Tensor& ids, std::optional<int64_t> frames, int64_t height, int64_t width,
                    const AreaSplits& splits);

/// The tokens of a batch, sorted by (sample, area) and otherwise in their own order.
struct AreaLayout {
  at::Tensor order;    ///< int64 (B*N): token b*N + n that comes at each sorted place
  at::Tensor inverse;  ///< int64 (B*N): sorted place of each token
  at::Tensor
      cu_seqlens;  ///< int32 (B*areas + 1): where each sample's areas begin, as ops::area_attention takes it
  int64_t max_seqlen;  ///< N: no area is longer; told without asking the device
};

/// From the areas (B,N) of the tokens, each in 0 .. areas - 1. Doesn't wait for the device.
AreaLayout area_layout(const at::Tensor& areas, int64_t num_areas);

}  // namespace genie::nn
