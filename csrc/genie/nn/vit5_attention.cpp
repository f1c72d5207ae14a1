#include "genie/nn/vit5_attention.h"

#include <ATen/ATen.h>

#include <cmath>

#include "genie/nn/dropout.h"
#include "genie/nn/input_check.h"
#include "genie/ops/area_attention/area_attention.h"
#include "genie/ops/kernel_query.h"
#include "genie/ops/rope/rope.h"

namespace genie::nn {
namespace {

constexpr double kNormEps = 1e-6;

/// Angles (height*width, head_dim) of a grid: the first half of the channels turns with the row, the second
/// with the column; two neighbouring channels share a frequency.
at::Tensor grid_angles(int64_t height, int64_t width, int64_t head_dim, double base) {
  const auto options = at::TensorOptions(at::kDouble);
  const int64_t half = head_dim / 2;
  const at::Tensor step = at::floor_divide(at::arange(half, at::kLong), 2).to(at::kDouble);
  const at::Tensor frequency = at::pow(base, step * (-2.0 / static_cast<double>(half)));
  const at::Tensor rows = at::arange(height, options).view({height, 1, 1}) * frequency;
  const at::Tensor columns = at::arange(width, options).view({1, width, 1}) * frequency;
  return at::cat({rows.expand({height, width, half}), columns.expand({height, width, half})}, 2)
      .flatten(0, 1);
}

int64_t square_root(int64_t value) {
  const auto root = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(value))));
  return root * root == value ? root : -1;
}

void check_options(const ViT5AttentionOptions& o) {
  TORCH_CHECK_VALUE(o.hidden_dim >= 1 && o.num_heads >= 1,
                    "ViT5Attention: hidden_dim and num_heads must be at least 1, got hidden_dim=",
                    o.hidden_dim, ", num_heads=", o.num_heads);
  TORCH_CHECK_VALUE(std::isfinite(o.scale.value_or(1)), "ViT5Attention: scale must be finite, got ",
                    o.scale.value_or(1));
  TORCH_CHECK_VALUE(o.head_dim > 0 || o.hidden_dim % o.num_heads == 0,
                    "ViT5Attention: hidden_dim=", o.hidden_dim,
                    " is not divisible by num_heads=", o.num_heads);
  const int64_t head_dim = o.head_dim > 0 ? o.head_dim : o.hidden_dim / o.num_heads;
  TORCH_CHECK_VALUE(head_dim % 4 == 0, "ViT5Attention: head_dim=", head_dim, " (hidden_dim=", o.hidden_dim,
                    " / num_heads=", o.num_heads, ") is not divisible by 4, which the rotation needs");
  TORCH_CHECK_VALUE(o.num_patches_h >= 0 && o.num_patches_w >= 0 && o.num_registers >= 0,
                    "ViT5Attention: counts must not be negative, got num_patches_h=", o.num_patches_h,
                    ", num_patches_w=", o.num_patches_w, ", num_registers=", o.num_registers);
  // Tables are made for all of them.
  constexpr int64_t kMostTokens = 1 << 24;
  TORCH_CHECK_VALUE(o.num_patches_h <= kMostTokens && o.num_patches_w <= kMostTokens &&
                        o.num_registers <= kMostTokens && o.num_patches_h * o.num_patches_w <= kMostTokens,
                    "ViT5Attention: at most ", kMostTokens, " patches and as many registers, got ",
                    o.num_patches_h, " x ", o.num_patches_w, " patches and ", o.num_registers, " registers");
  TORCH_CHECK_VALUE(square_root(o.num_registers) >= 0, "ViT5Attention: num_registers=", o.num_registers,
                    " is no perfect square; the registers' positions form a square grid");
  TORCH_CHECK_VALUE(!o.qk_norm || *o.qk_norm == "rmsnorm" || *o.qk_norm == "layernorm",
                    "ViT5Attention: qk_norm must be None, 'rmsnorm' or 'layernorm', got '",
                    o.qk_norm.value_or(""), "'");
  TORCH_CHECK_VALUE(
      o.rope_base > 0 && o.reg_rope_base > 0 && std::isfinite(o.rope_base) && std::isfinite(o.reg_rope_base),
      "ViT5Attention: rope_base and reg_rope_base must be positive, got ", o.rope_base, " and ",
      o.reg_rope_base);
  check_rates("ViT5Attention", {{"attn_dropout", o.attn_dropout}, {"proj_dropout", o.proj_dropout}});
}

}  // namespace

HeadNormImpl::HeadNormImpl(int64_t head_dim, bool subtract_mean) : subtract_mean_(subtract_mean) {
  weight_ = register_parameter("weight", at::ones({head_dim}));
}

at::Tensor HeadNormImpl::forward(const at::Tensor& x) {
  const auto dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor wide = x.to(dtype);
  if (subtract_mean_) wide = wide - wide.mean(-1, true);
  const at::Tensor scale = at::rsqrt(wide.square().mean(-1, true) + kNormEps);
  return (wide * scale * weight_.to(dtype)).to(x.scalar_type());
}

void HeadNormImpl::rebind(const std::string&, const at::Tensor& tensor) { weight_ = tensor; }

void HeadNormImpl::pretty_print(std::ostream& stream) const {
  stream << (subtract_mean_ ? "LayerNorm(" : "RMSNorm(") << weight_.size(0) << ", eps=" << kNormEps << ")";
}

ViT5AttentionImpl::ViT5AttentionImpl(const ViT5AttentionOptions& options) : options_(options) {
  check_options(options);
  const int64_t dim = options.hidden_dim;
  head_dim_ = options.head_dim > 0 ? options.head_dim : dim / options.num_heads;
  const int64_t inner = head_dim_ * options.num_heads;
  scale_ = options.scale.value_or(1 / std::sqrt(static_cast<double>(head_dim_)));
  qkv_ = register_module("qkv", Linear(torch::nn::LinearOptions(dim, 3 * inner).bias(options.qkv_bias)));
  proj_ = register_module("proj", Linear(torch::nn::LinearOptions(inner, dim).bias(options.out_proj_bias)));
  if (options.qk_norm) {
    q_norm_ = register_module("q_norm", HeadNorm(head_dim_, *options.qk_norm == "layernorm"));
    k_norm_ = register_module("k_norm", HeadNorm(head_dim_, *options.qk_norm == "layernorm"));
  }
  const int64_t side = square_root(options.num_registers);
  angles_ =
      at::cat({grid_angles(options.num_patches_h, options.num_patches_w, head_dim_, options.rope_base),
               at::zeros({options.num_plain_tokens + (options.has_cls ? 1 : 0), head_dim_}, at::kDouble),
               grid_angles(side, side, head_dim_, options.reg_rope_base)});
  rebuild_derived_buffers();
}

int64_t ViT5AttentionImpl::num_tokens() const { return angles_.size(0); }

at::Tensor ViT5AttentionImpl::forward(const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() == 3 && x.size(2) == options_.hidden_dim, "ViT5Attention: expected x (B,T,",
                    options_.hidden_dim, "), got ", x.sizes());
  TORCH_CHECK_VALUE(x.size(1) == num_tokens(), "ViT5Attention: expected ", num_tokens(), " tokens (",
                    options_.num_patches_h, " x ", options_.num_patches_w, " patches, ",
                    options_.has_cls ? 1 : 0, " CLS, ", options_.num_registers, " registers), got ",
                    x.size(1));
  check_dtype_and_device("ViT5Attention", "x", x, qkv_->weight);
  const int64_t batch = x.size(0), tokens = x.size(1), heads = options_.num_heads;
  const at::Tensor qkv = qkv_->forward(x).view({batch, tokens, 3, heads, head_dim_});
  at::Tensor q = qkv.select(2, 0), k = qkv.select(2, 1);
  const at::Tensor v = qkv.select(2, 2);
  if (!q_norm_.is_empty()) {
    q = q_norm_->forward(q);
    k = k_norm_->forward(k);
  }
  q = ops::rope_register(q, rope_cos_, rope_sin_);
  k = ops::rope_register(k, rope_cos_, rope_sin_);
  const double drop = is_training() ? options_.attn_dropout : 0.0;
  at::Tensor out;
  if (drop == 0 && ops::has_kernel("genie::area_attention", q)) {
    const at::Tensor starts = at::arange(batch + 1, x.options().dtype(at::kLong)) * tokens;
    out = ops::area_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), starts, tokens, scale_)
              .view({batch, tokens, heads * head_dim_});
  } else {
    out = attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), {}, drop, false, scale_)
              .transpose(1, 2)
              .flatten(2);
  }
  return nn::dropout(proj_->forward(out), options_.proj_dropout, is_training());
}

int64_t ViT5AttentionImpl::flop_count(int64_t num_tokens) const {
  TORCH_CHECK_VALUE(num_tokens >= 0, "ViT5Attention: num_tokens must not be negative, got ", num_tokens);
  const int64_t t = num_tokens, d = options_.hidden_dim;
  return 8 * t * d * d + 4 * t * t * d + 4 * t * d + (options_.qk_norm ? 2 * 3 * t * d : 0);
}

std::vector<std::pair<std::string, at::Tensor>> ViT5AttentionImpl::derived_buffers() const {
  return {{"rope_cos", rope_cos_}, {"rope_sin", rope_sin_}};
}

void ViT5AttentionImpl::rebuild_derived_buffers() {
  const auto& weight = qkv_->weight;
  const auto options = weight.options().dtype(weight.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  rope_cos_ = angles_.cos().to(options);
  rope_sin_ = angles_.sin().to(options);
}

void ViT5AttentionImpl::to(torch::Device device, torch::Dtype dtype, bool non_blocking) {
  Module::to(device, dtype, non_blocking);
  rebuild_derived_buffers();
}

void ViT5AttentionImpl::to(torch::Dtype dtype, bool non_blocking) {
  Module::to(dtype, non_blocking);
  rebuild_derived_buffers();
}

void ViT5AttentionImpl::to(torch::Device device, bool non_blocking) {
  Module::to(device, non_blocking);
  rebuild_derived_buffers();
}

}  // namespace genie::nn
