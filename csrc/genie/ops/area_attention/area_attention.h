#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace genie::ops {

/// Attention inside segments of any length that lie one after another, without padding: the exact form of
/// spatiotemporal area attention (V-JEPA 2, facebookresearch/vjepa2 pull request 121), where the areas of a
/// sample hold different numbers of tokens.
///
/// `q`, `k`, `v`: (total, heads, head_dim) of one dtype (float32, bfloat16 or float64 (on CUDA float16 too)),
/// heads and tokens at any stride. `cu_seqlens`: (segments + 1), int32 or int64, on the device of q: segment
/// s holds the tokens cu_seqlens[s] .. cu_seqlens[s + 1] - 1; the first entry is 0, the last is total; empty
/// segments are allowed. `max_seqlen`: at least the longest segment's length. `frame_ids`: (total), int32 or
/// int64: if given, a token sees only the tokens of its segment whose frame is not later than its own.
/// `scale`: head_dim^-0.5 unless given.
///
/// Returns (total, heads, head_dim). A segment's result depends on its own tokens only, to the bit. Backward
/// recomputes the weights. Raises ValueError for shapes or offsets that don't fit, TypeError for dtypes.
at::Tensor area_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const at::Tensor& cu_seqlens, int64_t max_seqlen,
                          std::optional<double> scale = std::nullopt,
                          const std::optional<at::Tensor>& frame_ids = std::nullopt);

/// The checks shared by all backends (not those that read `cu_seqlens`).
void check_area_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& frame_ids);

}  // namespace genie::ops
