#include "genie/nn/st_attention.h"

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

#include "genie/nn/dropout.h"
#include "genie/ops/kernel_query.h"
#include "genie/ops/st_attention/st_attention.h"

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

at::Tensor STAttentionBase::project(const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.size(3) == options_.dim, "ST attention: expected (B,T,N,", options_.dim,
                    "), got ", x.sizes());
  return qkv_->forward(x).view({x.size(0), x.size(1), x.size(2), 3, options_.num_heads, head_dim_});
}

at::Tensor STAttentionBase::attend(const at::Tensor& x, Axis axis, bool causal) {
  const at::Tensor qkv = project(x);
  const double drop = is_training() ? options_.attn_drop : 0.0;
  const at::Tensor out = drop == 0 && ops::has_kernel("genie::st_attention", qkv)
                             ? ops::st_attention(qkv, axis == Axis::space ? "space" : "time", causal,
                                                 /*qk_norm=*/true, scale_)
                             : attend_unfused(qkv, axis, causal, drop);
  return nn::dropout(proj_->forward(out), options_.proj_drop, is_training());
}

at::Tensor STAttentionBase::attend_unfused(const at::Tensor& qkv, Axis axis, bool causal, double drop) const {
  const at::Tensor qk = normalized(qkv.narrow(3, 0, 2));
  // (B,T,N,H,d) -> sequences (S,H,L,d) along the axis.
  const auto sequences = [axis](const at::Tensor& t) {
    return axis == Axis::space ? t.flatten(0, 1).transpose(1, 2) : t.permute({0, 2, 3, 1, 4}).flatten(0, 1);
  };
  const at::Tensor out = attention(sequences(qk.select(3, 0)), sequences(qk.select(3, 1)),
                                   sequences(qkv.select(3, 2)), {}, drop, causal, scale_);
  const int64_t batch = qkv.size(0), frames = qkv.size(1), tokens = qkv.size(2), heads = options_.num_heads;
  const std::vector<int64_t> merged = {batch, frames, tokens, heads * head_dim_};
  if (axis == Axis::space) return out.transpose(1, 2).reshape(merged);
  return out.view({batch, tokens, heads, frames, head_dim_}).permute({0, 3, 1, 2, 4}).reshape(merged);
}

at::Tensor STAttentionBase::normalized(const at::Tensor& qk) const {
  return at::layer_norm(qk, {head_dim_}, {}, {}, 1e-6);
}

at::Tensor STAttentionBase::attend_cached(const at::Tensor& x, TemporalCache& cache, int64_t layer) {
  const int64_t batch = x.size(0), frames = x.size(1), tokens = x.size(2), heads = options_.num_heads;
  TORCH_CHECK(frames == 1 || cache.length() == 0, "ST attention: ", frames,
              " new frames at once need an empty cache, it holds ", cache.length());
  const at::Tensor qkv = project(x);
  const at::Tensor qk = normalized(qkv.narrow(3, 0, 2));
  const auto past = cache.write(layer, qk.select(3, 1), qkv.select(3, 2));
  // A single frame sees all that is in the cache, so only the first frames need the causal mask.
  const at::Tensor out = at::scaled_dot_product_attention(
      qk.select(3, 0).permute({0, 2, 3, 1, 4}).flatten(0, 1), past.keys.flatten(0, 1),
      past.values.flatten(0, 1), {}, 0.0, frames > 1, scale_);
  return proj_->forward(out.view({batch, tokens, heads, frames, head_dim_})
                            .permute({0, 3, 1, 2, 4})
                            .reshape({batch, frames, tokens, heads * head_dim_}));
}

}  // namespace genie::nn
