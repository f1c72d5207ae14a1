#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <optional>
#include <string>

#include "genie/nn/linear.h"

namespace genie::nn {

struct CrossAttentionOptions {
  int64_t dim = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  std::optional<int64_t> head_dim = std::nullopt;  ///< dim / n_heads where absent
};

/// Attention of x to image features, without positions and causality (KempnerForge, kempnerforge/model/
/// cross_attention.py). Query head i uses key and value head i / (n_heads / n_kv_heads). The output
/// projection starts at zero. A sample whose mask is all false gets exactly 0 and gives no gradient (later
/// versions of the original attend to everything instead).
class CrossAttentionImpl : public torch::nn::Module {
 public:
  explicit CrossAttentionImpl(const CrossAttentionOptions& options);
  /// x (B,S,dim), image_features (B,N,dim) with N at least 1, image_mask bool (B,N), true = attend. Returns
  /// (B,S,dim).
  at::Tensor forward(const at::Tensor& x, const at::Tensor& image_features,
                     const std::optional<at::Tensor>& image_mask = std::nullopt);
  int64_t dim() const { return options_.dim; }
  const at::Tensor& weight() const { return q_proj_->weight; }

 private:
  CrossAttentionOptions options_;
  int64_t head_dim_;
  Linear q_proj_{nullptr}, k_proj_{nullptr}, v_proj_{nullptr}, o_proj_{nullptr};
};
TORCH_MODULE(CrossAttention);

/// down(silu(gate(x)) * up(x)) for "silu" (SwiGLU, Shazeer 2020, arXiv 2002.05202), else
/// down(activation(up(x))) with "gelu" (erf) or "relu". No biases; the output projection starts at zero.
class CrossAttentionMLPImpl : public torch::nn::Module {
 public:
  CrossAttentionMLPImpl(int64_t dim, int64_t hidden_dim, const std::string& activation);
  at::Tensor forward(const at::Tensor& x);

 private:
  std::string activation_;
  Linear gate_proj_{nullptr}, up_proj_{nullptr}, down_proj_{nullptr};
};
TORCH_MODULE(CrossAttentionMLP);

struct CrossAttentionBlockOptions {
  int64_t dim = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t ffn_hidden_dim = 0;
  std::string norm_type = "rmsnorm";  ///< or "layernorm"; eps 1e-5
  std::string activation = "silu";    ///< or "gelu", "relu"
};

/// x + attn(attn_norm(x), image_features), then + mlp(mlp_norm(x)): the identity at its start.
class CrossAttentionBlockImpl : public torch::nn::Module {
 public:
  explicit CrossAttentionBlockImpl(const CrossAttentionBlockOptions& options);
  /// As CrossAttention.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& image_features,
                     const std::optional<at::Tensor>& image_mask = std::nullopt);

 private:
  torch::nn::AnyModule attn_norm_, mlp_norm_;
  CrossAttention attn_{nullptr};
  CrossAttentionMLP mlp_{nullptr};
};
TORCH_MODULE(CrossAttentionBlock);

}  // namespace genie::nn
