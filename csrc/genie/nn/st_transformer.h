#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "genie/nn/area_layout.h"
#include "genie/nn/mlp.h"
#include "genie/nn/rebindable.h"
#include "genie/nn/st_attention.h"
#include "genie/nn/video_block.h"
#include "genie/nn/vit5_attention.h"

namespace genie::nn {

/// Arguments of a block; `attention` is used for space and time alike.
struct STBlockOptions {
  STAttentionOptions attention;
  double mlp_ratio = 4;
  double drop = 0;
  double drop_path = 0;
  std::string act_layer = "gelu";                           ///< of the MLP; see STMLP
  std::string norm_layer = "layernorm";                     ///< or "rmsnorm"; eps 1e-5
  std::optional<ViT5AttentionOptions> vit5 = std::nullopt;  ///< takes the place of spatial attention
};

/// x + spatial(norm(x)), then + temporal(norm(x)), then + mlp(norm(x)).
class STTransformerBlockImpl : public VideoBlock {
 public:
  explicit STTransformerBlockImpl(const STBlockOptions& options);
  /// x (B,T,N,C) or (B,T*N,C) with `num_frames`, the T a 3-D input must be told. Same shape out.
  at::Tensor forward(const at::Tensor& x, bool causal = true,
                     std::optional<int64_t> num_frames = std::nullopt);
  at::Tensor forward_frames(const at::Tensor& x, bool causal) override { return forward(x, causal); }
  at::Tensor forward_cached(const at::Tensor& x, TemporalCache& cache, int64_t layer) override;

 private:
  at::Tensor attend_in_frames(const at::Tensor& x);

  torch::nn::AnyModule norm1_spatial_, norm1_temporal_, norm2_;
  STSpatialAttention attn_spatial_{nullptr};  // or, with vit5:
  ViT5Attention attn_vit5_{nullptr};
  STTemporalAttention attn_temporal_{nullptr};
  STMLP mlp_{nullptr};
  DropPath drop_path_{nullptr};
};
TORCH_MODULE(STTransformerBlock);

/// Area attention in the layers [first_layer, end_layer) of a transformer.
struct AreaLayers {
  AreaSplits splits;
  int64_t first_layer = 0, end_layer = 0;
  double residual_scale = 1;
};

/// What attention needs that looks at where in the frame a token is. The frame's rows * columns patches come
/// first among its tokens.
struct FrameAttention {
  int64_t rows = 0, columns = 0;
  bool vit5 = false;          ///< ViT-5 attention in place of the ST spatial one
  int64_t num_registers = 4;  ///< with vit5
  std::optional<AreaLayers> area = std::nullopt;
};

struct STTransformerOptions {
  int64_t num_frames = 16;
  int64_t num_patches_per_frame = 256;
  int64_t dim = 768;
  int64_t depth = 12;
  int64_t num_heads = 12;
  double mlp_ratio = 4;
  bool qkv_bias = true;
  std::optional<double> qk_scale = std::nullopt;
  double drop_rate = 0;
  double attn_drop_rate = 0;
  double drop_path_rate = 0;
  bool gradient_checkpointing = false;
  int64_t head_dim = 0;
  FrameAttention frame = {};
  bool rotary_time = false;  ///< rotary time positions; a frame sees num_frames frames, itself included
};

/// What a caller does to the tokens after layer `layer` (0-based); takes and returns (B,T,N,C).
using AfterBlock = std::function<at::Tensor(int64_t layer, const at::Tensor& x)>;

/// `depth` blocks whose drop path rates grow linearly from 0 to drop_path_rate, and a final LayerNorm. With
/// options.frame.vit5, a CLS token and registers are added to each frame, go through all layers as further
/// positions, and are dropped at the end.
class STTransformerImpl : public torch::nn::Module, public Rebindable {
 public:
  explicit STTransformerImpl(const STTransformerOptions& options);
  /// x (B,T,N,C), or (B,T*N,C) with N = num_patches_per_frame. Same shape out.
  at::Tensor forward(const at::Tensor& x, bool causal = true, const AfterBlock& after_block = nullptr);
  /// What forward() gives for frames x (B,T_new,N,C) that follow those committed to the cache, without
  /// computing those again. Writes the new frames' keys and values behind them; cache.commit(T_new) keeps
  /// them.
  at::Tensor forward_cached(const at::Tensor& x, TemporalCache& cache,
                            const AfterBlock& after_block = nullptr);
  const STTransformerOptions& options() const { return options_; }
  void rebind(const std::string& name, const at::Tensor& tensor) override;

 private:
  std::shared_ptr<VideoBlock> make_block(int64_t layer) const;
  at::Tensor with_registers(const at::Tensor& x) const;

  STTransformerOptions options_;
  at::Tensor cls_token_;  // (C), with vit5
  at::Tensor registers_;  // (num_registers,C), with vit5
  torch::nn::ModuleList blocks_{nullptr};
  torch::nn::LayerNorm norm_{nullptr};
};
TORCH_MODULE(STTransformer);

}  // namespace genie::nn
