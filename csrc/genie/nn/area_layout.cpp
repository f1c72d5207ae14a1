#include "genie/nn/area_layout.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "genie/ops/rope/rope.h"

namespace genie::nn {

void check_splits(const char* module, const AreaSplits& splits) {
  constexpr int64_t kMost = 1024;
  TORCH_CHECK_VALUE(
      splits.spatial >= 1 && splits.temporal >= 1 && splits.spatial <= kMost && splits.temporal <= kMost,
      module, ": spatial_splits and temporal_splits must be at least 1 and at most ", kMost, ", got ",
      splits.spatial, " and ", splits.temporal);
}

at::Tensor area_ids(const at::Tensor& ids, std::optional<int64_t> frames, int64_t height, int64_t width,
                    const AreaSplits& splits) {
  TORCH_CHECK_TYPE(ids.scalar_type() == at::kLong, "area_ids: expected int64 token ids, got ",
                   ids.scalar_type());
  for (const int64_t side : {frames.value_or(1), height, width}) {
    TORCH_CHECK_VALUE(side >= 1 && side <= ops::kMaxGridSide,
                      "area_ids: T, H_patches and W_patches must be between 1 and ", ops::kMaxGridSide,
                      ", got T=", frames.value_or(1), ", H_patches=", height, ", W_patches=", width);
  }
  check_splits("area_ids", splits);
  if (ids.numel() == 0) return at::zeros_like(ids);
  const at::Tensor frame = at::floor_divide(ids, height * width);
  const at::Tensor row = at::floor_divide(at::remainder(ids, height * width), width);
  // As a tensor where it depends on the ids, so that nothing waits for the device.
  const at::Tensor frames_per_area =
      frames ? at::scalar_tensor(std::max<int64_t>(1, *frames / splits.temporal), ids.options())
             : at::floor_divide(frame.max() + 1, splits.temporal).clamp_min(1);
  const int64_t rows_per_area = std::max<int64_t>(1, height / splits.spatial);
  const at::Tensor temporal = at::floor_divide(frame, frames_per_area).clamp_max(splits.temporal - 1);
  const at::Tensor spatial = at::floor_divide(row, rows_per_area).clamp_max(splits.spatial - 1);
  return temporal * splits.spatial + spatial;
}

AreaLayout area_layout(const at::Tensor& areas, int64_t num_areas) {
  TORCH_CHECK_VALUE(areas.dim() == 2, "area_layout: expected the areas (B,N) of the tokens, got ",
                    areas.sizes());
  const int64_t batch = areas.size(0), tokens = areas.size(1);
  const at::Tensor segment = (areas + at::arange(batch, areas.options()).unsqueeze(1) * num_areas).flatten();
  AreaLayout layout;
  layout.order = std::get<1>(segment.sort(/*stable=*/true, /*dim=*/0, /*descending=*/false));
  layout.inverse = at::empty_like(layout.order);
  layout.inverse.scatter_(0, layout.order, at::arange(batch * tokens, areas.options()));
  const at::Tensor counts =
      at::zeros({batch * num_areas + 1}, areas.options().dtype(at::kInt))
          .index_add_(0, segment + 1, at::ones({batch * tokens}, areas.options().dtype(at::kInt)));
  layout.cu_seqlens = counts.cumsum(0, at::kInt);
  layout.max_seqlen = tokens;
  return layout;
}

}  // namespace genie::nn
