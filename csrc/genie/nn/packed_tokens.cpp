#include "genie/nn/packed_tokens.h"

#include <ATen/ATen.h>

namespace genie::nn {
namespace {

void check_ids(const at::Tensor& ids, const GridSize& grid) {
  TORCH_CHECK_TYPE(ids.scalar_type() == at::kLong, "masks must hold int64 token ids, got ",
                   ids.scalar_type());
  TORCH_CHECK_VALUE(ids.dim() == 2, "token ids must be (sequences, tokens), got ", ids.sizes());
  if (!ids.is_cpu() || ids.numel() == 0) return;
  const int64_t low = ids.min().item<int64_t>(), high = ids.max().item<int64_t>();
  TORCH_CHECK_INDEX(low >= 0 && high < grid.count(), "token ids must be in 0..", grid.count() - 1,
                    " for a grid of ", grid.frames, " x ", grid.height, " x ", grid.width, ", got ", low,
                    "..", high);
}

}  // namespace

PackedTokens pack_tokens(const at::Tensor& ids, const GridSize& grid,
                         const std::optional<AreaSplits>& areas) {
  check_ids(ids, grid);
  PackedTokens result;
  result.sequences = ids.size(0);
  result.tokens = ids.size(1);
  result.grid = grid;
  const auto offsets = ids.options().dtype(at::kInt);
  result.sequence_offsets = at::arange(result.sequences + 1, offsets) * result.tokens;
  result.positions = ids.flatten();
  if (!areas) return result;
  const at::Tensor area = area_ids(ids, grid.frames, grid.height, grid.width, *areas);
  const at::Tensor first = at::arange(result.sequences, ids.options()).unsqueeze(1) * result.tokens;
  const at::Tensor sorted =
      std::get<1>((area * grid.count() + ids).sort(/*stable=*/true, /*dim=*/1, /*descending=*/false));
  result.order = (sorted + first).flatten();
  result.inverse = at::empty_like(result.order);
  result.inverse.scatter_(0, result.order, at::arange(result.order.numel(), ids.options()));
  result.positions = result.positions.index_select(0, result.order);
  const at::Tensor counts = (area.unsqueeze(2) == at::arange(areas->count(), ids.options())).sum(1).flatten();
  result.area_offsets = at::cat({at::zeros({1}, offsets), counts.cumsum(0, at::kInt)});
  return result;
}

}  // namespace genie::nn
