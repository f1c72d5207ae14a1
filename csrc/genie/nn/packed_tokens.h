#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "genie/nn/area_layout.h"

namespace genie::nn {

/// The space-time grid that token ids count: id = (t height + row) width + column.
struct GridSize {
  int64_t frames = 1, height = 1, width = 1;
  int64_t count() const { return frames * height * width; }
};

/// How the tokens of R sequences of N tokens lie while layers work on them: a sequence after the other and,
/// where there are areas, the tokens of a sequence sorted by (area, position). Attention over segments
/// doesn't care for the order inside one, so that one sort serves all layers, full ones included.
struct PackedTokens {
  int64_t sequences = 0, tokens = 0;  ///< R, N
  GridSize grid;
  at::Tensor positions;         ///< int64 (R*N): token ids in packed order
  at::Tensor order;             ///< int64 (R*N): which token r*N + n lies at each place; undefined: its own
  at::Tensor inverse;           ///< int64 (R*N): the place of each token; undefined without areas
  at::Tensor sequence_offsets;  ///< int32 (R+1): where each sequence begins
  at::Tensor area_offsets;      ///< int32 (R*areas+1): where each area begins; undefined without areas

  /// The rows of x (R*N,C), token by token, in packed order; and back.
  at::Tensor pack(const at::Tensor& x) const { return order.defined() ? x.index_select(0, order) : x; }
  at::Tensor unpack(const at::Tensor& x) const { return inverse.defined() ? x.index_select(0, inverse) : x; }
};

/// The layout of tokens with `ids` int64 (R,N), in any order and also repeated. On the CPU ids outside the
/// grid raise IndexError; elsewhere that would wait for the device. Nothing here does.
PackedTokens pack_tokens(const at::Tensor& ids, const GridSize& grid, const std::optional<AreaSplits>& areas);

}  // namespace genie::nn
