#include "genie/nn/rope_attention.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "genie/nn/dropout.h"
#include "genie/nn/input_check.h"
#include "genie/ops/area_attention/area_attention.h"
#include "genie/ops/kernel_query.h"
#include "genie/ops/rope/rope.h"

namespace genie::nn {

RoPEAttentionImpl::RoPEAttentionImpl(const RoPEAttentionOptions& options) : options_(options) {
  head_dim_ =
      check_heads("RoPEAttention", options.dim, options.num_heads, options.head_dim, options.qk_scale);
  check_rates("RoPEAttention", {{"attn_drop", options.attn_drop}, {"proj_drop", options.proj_drop}});
  TORCH_CHECK_VALUE(options.grid_size >= 1, "RoPEAttention: grid_size must be at least 1, got ",
                    options.grid_size);
  scale_ = options.qk_scale.value_or(1 / std::sqrt(static_cast<double>(head_dim_)));
  const int64_t inner = head_dim_ * options.num_heads;
  qkv_ =
      register_module("qkv", Linear(torch::nn::LinearOptions(options.dim, 3 * inner).bias(options.qkv_bias)));
  proj_ = register_module("proj", Linear(inner, options.dim));
}

RoPEAttentionImpl::Positions RoPEAttentionImpl::resolve(const at::Tensor& x, const TokenGrid& grid) const {
  TORCH_CHECK_VALUE(x.dim() == 3 && x.size(2) == options_.dim, "RoPEAttention: expected x (B,N,",
                    options_.dim, "), got ", x.sizes());
  check_dtype_and_device("RoPEAttention", "x", x, qkv_->weight);
  TORCH_CHECK_VALUE(grid.height.has_value() == grid.width.has_value(),
                    "RoPEAttention: H_patches and W_patches belong together; give both or neither");
  Positions result{.ids = {},
                   .frames = grid.frames,
                   .height = grid.height.value_or(options_.grid_size),
                   .width = grid.width.value_or(options_.grid_size)};
  TORCH_CHECK_VALUE(result.height <= ops::kMaxGridSide && result.width <= ops::kMaxGridSide &&
                        result.frames.value_or(1) <= ops::kMaxGridSide,
                    "RoPEAttention: T, H_patches and W_patches must be at most ", ops::kMaxGridSide, ", got ",
                    result.frames.value_or(1), ", ", result.height, ", ", result.width);
  const int64_t per_frame = result.height * result.width;
  TORCH_CHECK_VALUE(result.height >= 1 && result.width >= 1 && result.frames.value_or(1) >= 1,
                    "RoPEAttention: T, H_patches and W_patches must be at least 1, got ",
                    result.frames.value_or(1), ", ", result.height, ", ", result.width);
  const int64_t batch = x.size(0), tokens = x.size(1);
  if (!grid.mask) {
    if (!result.frames) result.frames = tokens / per_frame;
    TORCH_CHECK_VALUE(*result.frames * per_frame == tokens, "RoPEAttention: ", tokens,
                      " tokens are not T x H x W = ", *result.frames, " x ", result.height, " x ",
                      result.width, "; give T, H_patches and W_patches, or a mask of token ids");
    result.ids = at::arange(tokens, x.options().dtype(at::kLong)).unsqueeze(0).expand({batch, tokens});
    return result;
  }
  const at::Tensor& mask = *grid.mask;
  TORCH_CHECK_TYPE(mask.scalar_type() == at::kLong || mask.scalar_type() == at::kInt,
                   "RoPEAttention: mask must hold int64 token ids, got ", mask.scalar_type());
  TORCH_CHECK_VALUE(mask.dim() == 2 && (mask.size(0) == batch || mask.size(0) == 1) && mask.size(1) == tokens,
                    "RoPEAttention: mask must be (B,N) = (", batch, ",", tokens, "), got ", mask.sizes());
  TORCH_CHECK_VALUE(mask.device() == x.device(), "RoPEAttention: x is on ", x.device(), ", mask on ",
                    mask.device());
  result.ids = mask.to(at::kLong).expand({batch, tokens});
  if (mask.is_cpu() && mask.numel() > 0) {  // elsewhere this would wait for the device
    const int64_t low = mask.min().item<int64_t>(), high = mask.max().item<int64_t>();
    TORCH_CHECK_VALUE(low >= 0, "RoPEAttention: token ids must not be negative, got ", low);
    TORCH_CHECK_VALUE(!result.frames || high < *result.frames * per_frame, "RoPEAttention: token id ", high,
                      " is outside the grid of ", result.frames.value_or(0), " x ", result.height, " x ",
                      result.width);
  }
  return result;
}

RoPEAttentionImpl::Heads RoPEAttentionImpl::project(const at::Tensor& x, const at::Tensor& ids,
                                                    int64_t height, int64_t width) {
  const at::Tensor qkv = qkv_->forward(x).view({x.size(0), x.size(1), 3, options_.num_heads, head_dim_});
  const at::Tensor qk = ops::rope_3d(qkv.narrow(2, 0, 2), ids, height, width);
  return {qk.select(2, 0), qk.select(2, 1), qkv.select(2, 2)};
}

at::Tensor RoPEAttentionImpl::attend_dense(const Heads& heads, const at::Tensor& visible,
                                           const std::optional<at::Tensor>& attn_mask) const {
  const int64_t tokens = heads.q.size(1);
  at::Tensor mask = visible;
  if (options_.is_causal) {
    const at::Tensor causal = at::ones({tokens, tokens}, heads.q.options().dtype(at::kBool)).tril();
    mask = mask.defined() ? mask & causal : causal;
  }
  // Rows that see nothing must give 0, which a softmax doesn't.
  at::Tensor rows_seeing;
  if (attn_mask) {
    TORCH_CHECK_TYPE(attn_mask->scalar_type() == at::kBool || attn_mask->is_floating_point(),
                     "RoPEAttention: attn_mask must be bool or floating-point, got ",
                     attn_mask->scalar_type());
    TORCH_CHECK_VALUE(attn_mask->device() == heads.q.device(), "RoPEAttention: x is on ", heads.q.device(),
                      ", attn_mask on ", attn_mask->device());
    const bool fits =
        attn_mask->dim() <= 4 &&
        at::is_expandable_to(attn_mask->sizes(), {heads.q.size(0), options_.num_heads, tokens, tokens});
    TORCH_CHECK_VALUE(fits, "RoPEAttention: attn_mask must broadcast to (B,heads,N,N) = (", heads.q.size(0),
                      ",", options_.num_heads, ",", tokens, ",", tokens, "), got ", attn_mask->sizes());
    // With its last two dimensions, which sums over rows and keys need.
    const at::Tensor given = at::atleast_2d(*attn_mask);
    const bool is_bool = given.scalar_type() == at::kBool;
    const at::Tensor allowed = is_bool ? given : given.ne(-std::numeric_limits<double>::infinity());
    const at::Tensor both = mask.defined() ? mask & allowed : allowed;
    rows_seeing = both.any(-1, true);
    const at::Tensor zero = at::zeros({}, heads.q.options());
    const at::Tensor added = is_bool ? zero : given.to(heads.q.scalar_type());
    mask = at::where(both | ~rows_seeing, at::where(rows_seeing, added, zero),
                     at::full({}, -std::numeric_limits<double>::infinity(), heads.q.options()));
  }
  const at::Tensor q = heads.q.transpose(1, 2), k = heads.k.transpose(1, 2), v = heads.v.transpose(1, 2);
  const double drop = is_training() ? options_.attn_drop : 0.0;
  const auto given = mask.defined() ? std::optional(mask) : std::nullopt;
  at::Tensor out;
  if (options_.use_sdpa) {
    out = attention(q, k, v, given, drop, false, scale_);
  } else {
    at::Tensor scores = at::matmul(q, k.transpose(-1, -2)) * scale_;
    if (mask.defined()) {
      scores = mask.scalar_type() == at::kBool
                   ? scores.masked_fill(~mask, -std::numeric_limits<double>::infinity())
                   : scores + mask;
    }
    out = at::matmul(nn::dropout(scores.softmax(-1), drop, is_training()), v);
  }
  if (rows_seeing.defined()) out = at::where(rows_seeing, out, at::zeros({}, out.options()));
  return out.transpose(1, 2);
}

at::Tensor RoPEAttentionImpl::merge(const at::Tensor& out) {
  at::Tensor merged = out.flatten(-2);
  if (residual_scale_ != 1) merged = merged * residual_scale_;
  return nn::dropout(proj_->forward(merged), options_.proj_drop, is_training());
}

bool RoPEAttentionImpl::fused(const at::Tensor& x, const std::optional<at::Tensor>& attn_mask) const {
  return options_.use_sdpa && !attn_mask && (!is_training() || options_.attn_drop == 0) &&
         ops::has_kernel("genie::area_attention", x);
}

at::Tensor RoPEAttentionImpl::forward(const at::Tensor& x, const TokenGrid& grid,
                                      const std::optional<at::Tensor>& attn_mask) {
  const Positions at = resolve(x, grid);
  const Heads heads = project(x, at.ids, at.height, at.width);
  if (!fused(x, attn_mask)) return merge(attend_dense(heads, {}, attn_mask));
  const int64_t batch = x.size(0), tokens = x.size(1);
  const at::Tensor starts = at::arange(batch + 1, at.ids.options()) * tokens;
  const auto order =
      options_.is_causal ? std::optional(at::arange(tokens, at.ids.options()).repeat({batch})) : std::nullopt;
  const at::Tensor out = ops::area_attention(heads.q.flatten(0, 1), heads.k.flatten(0, 1),
                                             heads.v.flatten(0, 1), starts, tokens, scale_, order);
  return merge(out.view({batch, tokens, options_.num_heads, head_dim_}));
}

at::Tensor RoPEAttentionImpl::forward_segments(const at::Tensor& x, const at::Tensor& positions,
                                               int64_t height, int64_t width, const at::Tensor& cu_seqlens,
                                               int64_t max_seqlen) {
  TORCH_CHECK_VALUE(x.dim() == 2 && x.size(1) == options_.dim, "RoPEAttention: expected x (total,",
                    options_.dim, "), got ", x.sizes());
  check_dtype_and_device("RoPEAttention", "x", x, qkv_->weight);
  TORCH_CHECK_VALUE(!options_.is_causal && (!is_training() || options_.attn_drop == 0),
                    "RoPEAttention: segments take neither is_causal nor attention dropout");
  const Heads heads = project(x.unsqueeze(0), positions, height, width);
  const at::Tensor out = ops::area_attention(heads.q.squeeze(0), heads.k.squeeze(0), heads.v.squeeze(0),
                                             cu_seqlens, max_seqlen, scale_);
  return merge(out);
}

RoPEAreaAttentionImpl::RoPEAreaAttentionImpl(const RoPEAreaAttentionOptions& options)
    : RoPEAttentionImpl(options.attention), splits_{options.spatial_splits, options.temporal_splits} {
  check_splits("RoPEAreaAttention", splits_);
  TORCH_CHECK_VALUE(std::isfinite(options.residual_scale),
                    "RoPEAreaAttention: residual_scale must be finite, got ", options.residual_scale);
  residual_scale_ = options.residual_scale;
}

at::Tensor RoPEAreaAttentionImpl::forward(const at::Tensor& x, const TokenGrid& grid,
                                          const std::optional<at::Tensor>& attn_mask) {
  const Positions at = resolve(x, grid);
  if (x.size(1) == 0) return RoPEAttentionImpl::forward(x, grid, attn_mask);  // no token, no area
  const at::Tensor areas = area_ids(at.ids, at.frames, at.height, at.width, splits_);
  if (!fused(x, attn_mask)) {
    const at::Tensor same_area = (areas.unsqueeze(1) == areas.unsqueeze(2)).unsqueeze(1);
    return merge(attend_dense(project(x, at.ids, at.height, at.width), same_area, attn_mask));
  }
  const int64_t batch = x.size(0), tokens = x.size(1);
  const AreaLayout layout = area_layout(areas, splits_.count());
  const at::Tensor sorted = x.flatten(0, 1).index_select(0, layout.order).unsqueeze(0);
  const Heads heads = project(sorted, at.ids.flatten().index_select(0, layout.order), at.height, at.width);
  const auto order = options_.is_causal ? std::optional(at::remainder(layout.order, tokens)) : std::nullopt;
  const at::Tensor out = ops::area_attention(heads.q.squeeze(0), heads.k.squeeze(0), heads.v.squeeze(0),
                                             layout.cu_seqlens, layout.max_seqlen, scale_, order);
  return merge(out.index_select(0, layout.inverse).view({batch, tokens, options_.num_heads, head_dim_}));
}

}  // namespace genie::nn
