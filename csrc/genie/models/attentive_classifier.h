#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <string>

#include "genie/nn/linear.h"
#include "genie/nn/mlp.h"
#include "genie/nn/rebindable.h"

namespace genie::models {

struct AttentiveClassifierOptions {
  int64_t embed_dim = 768;  ///< width of the features
  int64_t num_heads = 12;
  int64_t depth = 1;  ///< blocks: depth - 1 of self-attention, and the one that pools
  double mlp_ratio = 4;
  bool qkv_bias = true;
  int64_t num_classes = 1000;
};

/// Attention among all tokens, without positions: `qkv`, `proj`.
class TokenAttentionImpl : public torch::nn::Module {
 public:
  explicit TokenAttentionImpl(const AttentiveClassifierOptions& options);
  at::Tensor forward(const at::Tensor& x);

 private:
  int64_t heads_;
  nn::Linear qkv_{nullptr}, proj_{nullptr};
};
TORCH_MODULE(TokenAttention);

/// Attention of queries (B,Q,D) to features (B,N,D): `q`, `kv`, and no output projection.
class QueryAttentionImpl : public torch::nn::Module {
 public:
  explicit QueryAttentionImpl(const AttentiveClassifierOptions& options);
  at::Tensor forward(const at::Tensor& queries, const at::Tensor& features);

 private:
  int64_t heads_;
  nn::Linear q_{nullptr}, kv_{nullptr};
};
TORCH_MODULE(QueryAttention);

/// x + attn(norm1(x)), then + mlp(norm2(x)); norms with eps 1e-5.
class TokenBlockImpl : public torch::nn::Module {
 public:
  explicit TokenBlockImpl(const AttentiveClassifierOptions& options);
  at::Tensor forward(const at::Tensor& x);

 private:
  torch::nn::LayerNorm norm1_{nullptr}, norm2_{nullptr};
  TokenAttention attn_{nullptr};
  nn::STMLP mlp_{nullptr};
};
TORCH_MODULE(TokenBlock);

/// q + xattn(q, norm1(features)), then + mlp(norm2(q)).
class QueryBlockImpl : public torch::nn::Module {
 public:
  explicit QueryBlockImpl(const AttentiveClassifierOptions& options);
  at::Tensor forward(const at::Tensor& queries, const at::Tensor& features);

 private:
  torch::nn::LayerNorm norm1_{nullptr}, norm2_{nullptr};
  QueryAttention xattn_{nullptr};
  nn::STMLP mlp_{nullptr};
};
TORCH_MODULE(QueryBlock);

/// Features (B,N,D) to one vector a clip (B,1,D), by a learned query.
class AttentivePoolerImpl : public torch::nn::Module, public nn::Rebindable {
 public:
  explicit AttentivePoolerImpl(const AttentiveClassifierOptions& options);
  at::Tensor forward(const at::Tensor& features);
  void rebind(const std::string& name, const at::Tensor& tensor) override;

 private:
  at::Tensor query_tokens_;
  QueryBlock cross_attention_block_{nullptr};
  torch::nn::ModuleList blocks_{nullptr};
};
TORCH_MODULE(AttentivePooler);

/// The probe of V-JEPA 2's frozen evaluation (facebookresearch/vjepa2, src/models/attentive_pooler.py) with
/// its weight names: features (B,N,embed_dim) of a frozen encoder to logits (B,num_classes).
class AttentiveClassifierImpl : public torch::nn::Module {
 public:
  explicit AttentiveClassifierImpl(const AttentiveClassifierOptions& options);
  at::Tensor forward(const at::Tensor& features_BND);

 private:
  AttentiveClassifierOptions options_;
  AttentivePooler pooler_{nullptr};
  nn::Linear linear_{nullptr};
};
TORCH_MODULE(AttentiveClassifier);

}  // namespace genie::models
