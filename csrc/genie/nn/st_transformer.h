#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <optional>
#include <string>

#include "genie/nn/st_attention.h"

namespace genie::nn {

/// Two linear layers with an activation between ("gelu" with erf, "silu", "relu") and dropout after each.
class STMLPImpl : public torch::nn::Module {
 public:
  STMLPImpl(int64_t in_features, int64_t hidden_features, int64_t out_features,
            std::string act_layer = "gelu", double drop = 0);
  at::Tensor forward(const at::Tensor& x);

 private:
  std::string act_layer_;
  double drop_;
  torch::nn::Linear fc1_{nullptr}, fc2_{nullptr};
};
TORCH_MODULE(STMLP);

/// Stochastic depth (Huang et al. 2016, arXiv 1603.09382): in training drops a sample's branch with
/// probability `drop_prob` and scales the others by 1 / (1 - drop_prob).
class DropPathImpl : public torch::nn::Module {
 public:
  explicit DropPathImpl(double drop_prob = 0);
  at::Tensor forward(const at::Tensor& x);

 private:
  double drop_prob_;
};
TORCH_MODULE(DropPath);

/// Arguments of a block; `attention` is used for space and time alike.
struct STBlockOptions {
  STAttentionOptions attention;
  double mlp_ratio = 4;
  double drop = 0;
  double drop_path = 0;
  std::string act_layer = "gelu";        ///< of the MLP; see STMLP
  std::string norm_layer = "layernorm";  ///< or "rmsnorm"; eps 1e-5
};

/// x + spatial(norm(x)), then + temporal(norm(x)), then + mlp(norm(x)).
class STTransformerBlockImpl : public torch::nn::Module {
 public:
  explicit STTransformerBlockImpl(const STBlockOptions& options);
  /// x (B,T,N,C) or (B,T*N,C) with `num_frames`, the T a 3-D input must be told. Same shape out.
  at::Tensor forward(const at::Tensor& x, bool causal = true,
                     std::optional<int64_t> num_frames = std::nullopt);
  /// New frames x (B,T_new,N,C) behind those in the cache; see STTemporalAttentionImpl::forward_cached.
  at::Tensor forward_cached(const at::Tensor& x, TemporalCache& cache, int64_t layer);

 private:
  torch::nn::AnyModule norm1_spatial_, norm1_temporal_, norm2_;
  STSpatialAttention attn_spatial_{nullptr};
  STTemporalAttention attn_temporal_{nullptr};
  STMLP mlp_{nullptr};
  DropPath drop_path_{nullptr};
};
TORCH_MODULE(STTransformerBlock);

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
};

/// `depth` blocks whose drop path rates grow linearly from 0 to drop_path_rate, and a final LayerNorm.
class STTransformerImpl : public torch::nn::Module {
 public:
  explicit STTransformerImpl(const STTransformerOptions& options);
  /// x (B,T,N,C), or (B,T*N,C) with N = num_patches_per_frame. Same shape out.
  at::Tensor forward(const at::Tensor& x, bool causal = true);
  /// What forward() gives for frames x (B,T_new,N,C) that follow those committed to the cache, without
  /// computing those again. Writes the new frames' keys and values behind them; cache.commit(T_new) keeps
  /// them.
  at::Tensor forward_cached(const at::Tensor& x, TemporalCache& cache);
  const STTransformerOptions& options() const { return options_; }

 private:
  STTransformerOptions options_;
  torch::nn::ModuleList blocks_{nullptr};
  torch::nn::LayerNorm norm_{nullptr};
};
TORCH_MODULE(STTransformer);

}  // namespace genie::nn
