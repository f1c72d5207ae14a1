#include "genie/nn/st_attention.h"

#include <ATen/ATen.h>
#include <torch/nn/functional/dropout.h>

#include <cmath>

namespace genie::nn {

STAttentionBase::STAttentionBase(const STAttentionOptions& options) : options_(options) {
  TORCH_CHECK_VALUE(options.dim >= 1 && options.num_heads >= 1,
                    "ST attention: dim and num_heads must be at least 1, got dim=", options.dim,
                    ", num_heads=", options.num_heads);
  TORCH_CHECK_VALUE(options.head_dim > 0 || options.dim % options.num_heads == 0,
                    "ST attention: dim=", options.dim, " is not divisible by num_heads=", options.num_heads,
                    "; change one of them or give head_dim");
  head_dim_ = options.head_dim > 0 ? options.head_dim : options.dim / options.num_heads;
  scale_ = options.qk_scale.value_or(1.0 / std::sqrt(static_cast<double>(head_dim_)));
  const int64_t inner = head_dim_ * options.num_heads;
  qkv_ = register_module(
      "qkv", torch::nn::Linear(torch::nn::LinearOptions(options.dim, 3 * inner).bias(options.qkv_bias)));
  proj_ = register_module("proj", torch::nn::Linear(inner, options.dim));
}

at::Tensor STAttentionBase::attend(const at::Tensor& x, Axis axis, bool causal) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.size(3) == options_.dim, "ST attention: expected (B,T,N,", options_.dim,
                    "), got ", x.sizes());
  const int64_t batch = x.size(0), frames = x.size(1), tokens = x.size(2), heads = options_.num_heads;
  const at::Tensor qkv = qkv_->forward(x).view({batch, frames, tokens, 3, heads, head_dim_});
  const at::Tensor qk = at::layer_norm(qkv.narrow(3, 0, 2), {head_dim_}, {}, {}, 1e-6);

  // (B,T,N,H,d) -> sequences (S,H,L,d), without copying.
  const auto sequences = [&](const at::Tensor& t) {
    if (axis == Axis::space) return t.flatten(0, 1).transpose(1, 2);
    return t.permute({0, 2, 3, 1, 4}).flatten(0, 1);
  };
  const double drop = is_training() ? options_.attn_drop : 0.0;
  at::Tensor out = at::scaled_dot_product_attention(sequences(qk.select(3, 0)), sequences(qk.select(3, 1)),
                                                    sequences(qkv.select(3, 2)), {}, drop, causal, scale_);
  if (axis == Axis::space) {
    out = out.transpose(1, 2).reshape({batch, frames, tokens, heads * head_dim_});
  } else {
    out = out.view({batch, tokens, heads, frames, head_dim_})
              .permute({0, 3, 1, 2, 4})
              .reshape({batch, frames, tokens, heads * head_dim_});
  }
  return at::dropout(proj_->forward(out), options_.proj_drop, is_training());
}

}  // namespace genie::nn
