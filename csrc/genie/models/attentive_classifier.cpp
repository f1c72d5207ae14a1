#include "genie/models/attentive_classifier.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <vector>

#include "genie/nn/input_check.h"
#include "genie/nn/rope_block.h"

namespace genie::models {
namespace {

constexpr double kNormEps = 1e-5;

nn::Linear linear(int64_t in, int64_t out, bool bias) {
  return nn::Linear(torch::nn::LinearOptions(in, out).bias(bias));
}

torch::nn::LayerNorm layer_norm(int64_t dim) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim}).eps(kNormEps));
}

nn::STMLP mlp(const AttentiveClassifierOptions& o) {
  return nn::STMLP(o.embed_dim, nn::mlp_width("AttentiveClassifier", o.embed_dim, o.mlp_ratio), o.embed_dim);
}

/// (B,N,H*d) to (B,H,N,d).
at::Tensor split_heads(const at::Tensor& x, int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads}).transpose(1, 2);
}

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads) {
  return at::scaled_dot_product_attention(split_heads(q, heads), split_heads(k, heads), split_heads(v, heads))
      .transpose(1, 2)
      .flatten(2);
}

void rescale(torch::nn::Module& module, const std::vector<const char*>& names, int64_t layer) {
  at::NoGradGuard no_grad;
  auto parameters = module.named_parameters();
  for (const char* name : names) parameters[name].div_(std::sqrt(2.0 * static_cast<double>(layer)));
}

}  // namespace

TokenAttentionImpl::TokenAttentionImpl(const AttentiveClassifierOptions& o) : heads_(o.num_heads) {
  qkv_ = register_module("qkv", linear(o.embed_dim, 3 * o.embed_dim, o.qkv_bias));
  proj_ = register_module("proj", linear(o.embed_dim, o.embed_dim, true));
}

at::Tensor TokenAttentionImpl::forward(const at::Tensor& x) {
  const auto qkv = qkv_->forward(x).chunk(3, -1);
  return proj_->forward(attend(qkv[0], qkv[1], qkv[2], heads_));
}

QueryAttentionImpl::QueryAttentionImpl(const AttentiveClassifierOptions& o) : heads_(o.num_heads) {
  q_ = register_module("q", linear(o.embed_dim, o.embed_dim, o.qkv_bias));
  kv_ = register_module("kv", linear(o.embed_dim, 2 * o.embed_dim, o.qkv_bias));
}

at::Tensor QueryAttentionImpl::forward(const at::Tensor& queries, const at::Tensor& features) {
  // There is one query, and many tokens: its heads are carried through the weights of the keys, and the
  // tokens are averaged before the weights of the values, so that no token is projected. The keys' bias adds
  // the same to all scores of a head, which softmax takes out again.
  const int64_t batch = queries.size(0), count = queries.size(1), dim = queries.size(2), head = dim / heads_;
  const auto by_head = [&](const at::Tensor& x) {  // (B,Q,H,C) to (H,B*Q,C)
    return x.permute({2, 0, 1, 3}).reshape({heads_, batch * count, x.size(3)});
  };
  const auto by_sample = [&](const at::Tensor& x) {  // and back, to (B,Q*H,C)
    return x.reshape({heads_, batch, count, x.size(2)})
        .permute({1, 2, 0, 3})
        .reshape({batch, count * heads_, x.size(2)});
  };
  const at::Tensor weights = kv_->weight.view({2, heads_, head, dim});
  const at::Tensor q = q_->forward(queries).view({batch, count, heads_, head});
  const at::Tensor asked =
      by_sample(at::matmul(by_head(q), weights[0])) / std::sqrt(static_cast<double>(head));
  const at::Tensor shares = at::matmul(asked, features.transpose(1, 2)).softmax(-1);
  const at::Tensor mean = at::matmul(shares, features).reshape({batch, count, heads_, dim});
  const at::Tensor values = by_sample(at::matmul(by_head(mean), weights[1].transpose(1, 2)));
  const at::Tensor merged = values.reshape({batch, count, dim});
  return kv_->bias.defined() ? merged + kv_->bias.narrow(0, dim, dim) : merged;
}

TokenBlockImpl::TokenBlockImpl(const AttentiveClassifierOptions& o) {
  norm1_ = register_module("norm1", layer_norm(o.embed_dim));
  attn_ = register_module("attn", TokenAttention(o));
  norm2_ = register_module("norm2", layer_norm(o.embed_dim));
  mlp_ = register_module("mlp", mlp(o));
}

at::Tensor TokenBlockImpl::forward(const at::Tensor& input) {
  const at::Tensor x = input + attn_->forward(norm1_->forward(input));
  return x + mlp_->forward(norm2_->forward(x));
}

QueryBlockImpl::QueryBlockImpl(const AttentiveClassifierOptions& o) {
  norm1_ = register_module("norm1", layer_norm(o.embed_dim));
  xattn_ = register_module("xattn", QueryAttention(o));
  norm2_ = register_module("norm2", layer_norm(o.embed_dim));
  mlp_ = register_module("mlp", mlp(o));
}

at::Tensor QueryBlockImpl::forward(const at::Tensor& queries, const at::Tensor& features) {
  const at::Tensor q = queries + xattn_->forward(queries, norm1_->forward(features));
  return q + mlp_->forward(norm2_->forward(q));
}

AttentivePoolerImpl::AttentivePoolerImpl(const AttentiveClassifierOptions& o) {
  query_tokens_ = register_parameter("query_tokens", at::zeros({1, 1, o.embed_dim}));
  cross_attention_block_ = register_module("cross_attention_block", QueryBlock(o));
  if (o.depth > 1) blocks_ = register_module("blocks", torch::nn::ModuleList());
  for (int64_t i = 1; i < o.depth; ++i) blocks_->push_back(TokenBlock(o));
}

at::Tensor AttentivePoolerImpl::forward(const at::Tensor& features) {
  at::Tensor x = features;
  if (!blocks_.is_empty()) {
    for (const auto& block : *blocks_) x = block->as<TokenBlockImpl>()->forward(x);
  }
  return cross_attention_block_->forward(query_tokens_.expand({x.size(0), -1, -1}), x);
}

void AttentivePoolerImpl::rebind(const std::string& /*name*/, const at::Tensor& tensor) {
  query_tokens_ = tensor;
}

AttentiveClassifierImpl::AttentiveClassifierImpl(const AttentiveClassifierOptions& o) : options_(o) {
  nn::check_heads("AttentiveClassifier", o.embed_dim, o.num_heads, 0, std::nullopt);
  TORCH_CHECK_VALUE(o.depth >= 1 && o.num_classes >= 1,
                    "AttentiveClassifier: depth and num_classes must be at least 1, got ", o.depth, " and ",
                    o.num_classes);
  pooler_ = register_module("pooler", AttentivePooler(o));
  linear_ = register_module("linear", linear(o.embed_dim, o.num_classes, true));
  nn::initialize_vjepa(*this);
  {
    at::NoGradGuard no_grad;
    named_parameters()["pooler.query_tokens"].normal_(0, 0.02);
  }
  // The pooling block counts as the first layer, those of self-attention follow.
  rescale(*pooler_, {"cross_attention_block.mlp.fc2.weight"}, 1);
  for (int64_t i = 0; i + 1 < o.depth; ++i) {
    const std::string prefix = "blocks." + std::to_string(i) + ".";
    const std::string attention = prefix + "attn.proj.weight", last = prefix + "mlp.fc2.weight";
    rescale(*pooler_, {attention.c_str(), last.c_str()}, i + 2);
  }
}

at::Tensor AttentiveClassifierImpl::forward(const at::Tensor& features) {
  TORCH_CHECK_VALUE(features.dim() == 3 && features.size(2) == options_.embed_dim && features.size(1) >= 1,
                    "AttentiveClassifier: expected features (B,N,", options_.embed_dim,
                    ") of at least one token, got ", features.sizes());
  nn::check_dtype_and_device("AttentiveClassifier", "features", features, linear_->weight);
  return linear_->forward(pooler_->forward(features).squeeze(1));
}

}  // namespace genie::models
