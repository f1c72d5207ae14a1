#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <optional>

#include "genie/nn/area_layout.h"
#include "genie/nn/linear.h"

namespace genie::nn {

struct RoPEAttentionOptions {
  int64_t dim = 0;
  int64_t num_heads = 8;
  bool qkv_bias = false;
  std::optional<double> qk_scale = std::nullopt;  ///< head_dim^-0.5 where absent
  double attn_drop = 0;
  double proj_drop = 0;
  bool use_sdpa = true;  ///< false computes the weights explicitly; the result is the same
  int64_t grid_size = 14;
  bool is_causal = false;  ///< a token sees itself and the tokens before it in the sequence
  int64_t head_dim = 0;    ///< dim / num_heads where 0
};

/// Where the tokens of a call lie. Without `mask` they are the ids 0 .. T*H*W - 1.
struct TokenGrid {
  std::optional<at::Tensor>
      mask;                       ///< token ids (B,N), int64: the visible tokens of each sample, in any order
  std::optional<int64_t> frames;  ///< T
  std::optional<int64_t> height;  ///< H_patches; grid_size where absent
  std::optional<int64_t> width;   ///< W_patches; grid_size where absent
};

/// V-JEPA 2's attention with 3-D rotary positions (facebookresearch/vjepa2, src/models/utils/modules.py).
/// Where the original is wrong, this isn't: attn_drop is what drops attention weights, in training only
/// (there proj_drop does, always), and qk_scale holds with use_sdpa too.
class RoPEAttentionImpl : public torch::nn::Module {
 public:
  explicit RoPEAttentionImpl(const RoPEAttentionOptions& options);

  /// x (B,N,dim) -> (B,N,dim). `attn_mask`: bool (true: attend) or added to the scores, broadcastable to
  /// (B,heads,N,N); a row that may see nothing gives 0 before the output projection.
  at::Tensor forward(const at::Tensor& x, const TokenGrid& grid = {},
                     const std::optional<at::Tensor>& attn_mask = std::nullopt);

  /// The same for tokens x (total,dim) at `positions` (total) of a grid of height x width, that attend inside
  /// segments: an encoder sorts its tokens once and runs all its layers on them.
  at::Tensor forward_segments(const at::Tensor& x, const at::Tensor& positions, int64_t height, int64_t width,
                              const at::Tensor& cu_seqlens, int64_t max_seqlen);

  const RoPEAttentionOptions& options() const { return options_; }

 protected:
  /// Where each token of a call is: ids (B,N), and the grid with its defaults filled in.
  struct Positions {
    at::Tensor ids;
    std::optional<int64_t> frames;
    int64_t height, width;
  };
  struct Heads {
    at::Tensor q, k, v;  // (B,N,H,d), q and k rotated
  };
  Positions resolve(const at::Tensor& x, const TokenGrid& grid) const;
  Heads project(const at::Tensor& x, const at::Tensor& ids, int64_t height, int64_t width);
  /// Attention of all tokens of a sample under a mask; `visible` (B,1,N,N) or undefined.
  at::Tensor attend_dense(const Heads& heads, const at::Tensor& visible,
                          const std::optional<at::Tensor>& attn_mask) const;
  at::Tensor merge(const at::Tensor& out);
  /// Whether the fused op can do the call.
  bool fused(const at::Tensor& x, const std::optional<at::Tensor>& attn_mask) const;

  RoPEAttentionOptions options_;
  int64_t head_dim_;
  double scale_;
  double residual_scale_ = 1;
  Linear qkv_{nullptr}, proj_{nullptr};
};
TORCH_MODULE(RoPEAttention);

struct RoPEAreaAttentionOptions {
  RoPEAttentionOptions attention;
  int64_t spatial_splits = 2;
  int64_t temporal_splits = 2;
  double residual_scale = 1;
};

/// Spatiotemporal area attention (facebookresearch/vjepa2, pull request 121): RoPEAttention in which a token
/// sees only its own area, with the same weights. Areas are exact whatever number of tokens each holds; the
/// original pads the sorted sequence and cuts it into equal chunks, so that tokens attend across the borders
/// of uneven areas.
class RoPEAreaAttentionImpl : public RoPEAttentionImpl {
 public:
  explicit RoPEAreaAttentionImpl(const RoPEAreaAttentionOptions& options);

  /// As RoPEAttention; the merged heads times residual_scale go into the output projection. With a mask but
  /// without `frames`, the areas divide the frames up to the latest one of the batch.
  at::Tensor forward(const at::Tensor& x, const TokenGrid& grid = {},
                     const std::optional<at::Tensor>& attn_mask = std::nullopt);

  const AreaSplits& splits() const { return splits_; }

 private:
  AreaSplits splits_;
};
TORCH_MODULE(RoPEAreaAttention);

}  // namespace genie::nn
