#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

namespace genie::ops {

/// Attention along one axis of a video (the factored attention of ST-transformers: Xu et al. 2020,
/// arXiv 2001.02908, as used by Genie), straight from the output of the joint projection.
///
/// `qkv`: (B, T, N, 3, heads, head_dim) in float32, bfloat16 or float64 (on CUDA float16 too). `axis`
/// "space": the N positions of a frame attend to each other; "time": the T frames of a position do. `causal`:
/// an element sees itself and what comes before it on that axis. `qk_norm`: LayerNorm of each head's q and k,
/// without weights, eps 1e-6. `scale`: factor of the scores, head_dim^-0.5 unless given.
///
/// Returns (B, T, N, heads * head_dim) of the same dtype. Backward recomputes the weights; only qkv is saved.
/// Raises ValueError for another shape or axis, TypeError for another dtype.
at::Tensor st_attention(const at::Tensor& qkv, std::string_view axis, bool causal, bool qk_norm,
                        std::optional<double> scale = std::nullopt);

/// The checks shared by all backends.
void check_st_attention(const at::Tensor& qkv, std::string_view axis);

}  // namespace genie::ops
