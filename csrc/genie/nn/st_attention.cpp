#include "genie/nn/st_attention.h"

#include <ATen/ATen.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "genie/nn/dropout.h"
#include "genie/nn/input_check.h"
#include "genie/ops/kernel_query.h"
#include "genie/ops/past_attention/past_attention.h"
#include "genie/ops/residual_branch/residual_branch.h"
#include "genie/ops/rope/rope.h"
#include "genie/ops/st_attention/st_attention.h"

namespace genie::nn {
namespace {

constexpr double kNormEps = 1e-6;
constexpr double kRotaryBase = 10000;

}  // namespace

STAttentionBase::STAttentionBase(const STAttentionOptions& options) : options_(options) {
  head_dim_ = check_heads("ST attention", options.dim, options.num_heads, options.head_dim, options.qk_scale);
  check_rates("ST attention", {{"attn_drop", options.attn_drop}, {"proj_drop", options.proj_drop}});
  TORCH_CHECK_VALUE(options.rotary_window == 0 || head_dim_ % 4 == 0,
                    "ST attention: rotary time positions turn channels in fours, and a head has ", head_dim_);
  scale_ = options.qk_scale.value_or(1.0 / std::sqrt(static_cast<double>(head_dim_)));
  const int64_t inner = head_dim_ * options.num_heads;
  qkv_ =
      register_module("qkv", Linear(torch::nn::LinearOptions(options.dim, 3 * inner).bias(options.qkv_bias)));
  proj_ = register_module("proj", Linear(inner, options.dim));
}

at::Tensor STAttentionBase::project(const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.size(3) == options_.dim, "ST attention: expected (B,T,N,", options_.dim,
                    "), got ", x.sizes());
  check_dtype_and_device("ST attention", "x", x, qkv_->weight);
  return as_heads(qkv_->forward(x));
}

at::Tensor STAttentionBase::project_normalized(const at::Tensor& x, const torch::nn::LayerNormImpl& norm) {
  const std::optional<at::Tensor> bias = qkv_->bias.defined() ? std::optional(qkv_->bias) : std::nullopt;
  return as_heads(ops::norm_linear(x, norm.weight, norm.bias, norm.options.eps(), qkv_->weight, bias));
}

at::Tensor STAttentionBase::as_heads(const at::Tensor& packed) const {
  return packed.view({packed.size(0), packed.size(1), packed.size(2), 3, options_.num_heads, head_dim_});
}

at::Tensor STAttentionBase::attend(const at::Tensor& x, Axis axis, bool causal) {
  return nn::dropout(proj_->forward(attention_of(project(x), axis, causal)), options_.proj_drop,
                     is_training());
}

at::Tensor STAttentionBase::attend_and_add(const at::Tensor& x, torch::nn::AnyModule& norm,
                                           DropPathImpl& drop_path, Axis axis, bool causal) {
  const auto* layer_norm = fusable_norm(norm, x, qkv_->weight);
  if (!layer_norm || drop_path.active() || (options_.proj_drop > 0 && is_training())) {
    return x + drop_path.forward(attend(norm.forward(x), axis, causal));
  }
  return ops::linear_residual(attention_of(project_normalized(x, *layer_norm), axis, causal), proj_->weight,
                              proj_->bias, x);
}

at::Tensor STAttentionBase::attention_of(const at::Tensor& qkv, Axis axis, bool causal) const {
  const double drop = is_training() ? options_.attn_drop : 0.0;
  const bool turned = axis == Axis::time && options_.rotary_window > 0;
  const bool sees_all = !turned || qkv.size(1) <= options_.rotary_window;
  if (drop > 0 || !sees_all || !ops::has_kernel("genie::st_attention", qkv)) {
    return attend_unfused(qkv, axis, causal, drop);
  }
  const char* along = axis == Axis::space ? "space" : "time";
  if (!turned) return ops::st_attention(qkv, along, causal, /*qk_norm=*/true, scale_);
  const at::Tensor qk = normalized(qkv.narrow(3, 0, 2), true, 0);
  return ops::st_attention(at::cat({qk.to(qkv.scalar_type()), qkv.narrow(3, 2, 1)}, 3), along, causal,
                           /*qk_norm=*/false, scale_);
}

at::Tensor STAttentionBase::attend_unfused(const at::Tensor& qkv, Axis axis, bool causal, double drop) const {
  const int64_t batch = qkv.size(0), frames = qkv.size(1), tokens = qkv.size(2), heads = options_.num_heads;
  const at::Tensor qk = normalized(qkv.narrow(3, 0, 2), axis == Axis::time, 0);
  // (B,T,N,H,d) -> sequences (S,H,L,d) along the axis.
  const auto sequences = [axis](const at::Tensor& t) {
    return axis == Axis::space ? t.flatten(0, 1).transpose(1, 2) : t.permute({0, 2, 3, 1, 4}).flatten(0, 1);
  };
  std::optional<at::Tensor> band;
  if (axis == Axis::time && options_.rotary_window > 0 && frames > options_.rotary_window) {
    const at::Tensor all = at::ones({frames, frames}, qkv.options().dtype(at::kBool));
    band = all.triu(1 - options_.rotary_window);
    if (causal) band = band->tril();
  }
  const at::Tensor out = attention(sequences(qk.select(3, 0)), sequences(qk.select(3, 1)),
                                   sequences(qkv.select(3, 2)), band, drop, causal && !band, scale_);
  const std::vector<int64_t> merged = {batch, frames, tokens, heads * head_dim_};
  if (axis == Axis::space) return out.transpose(1, 2).reshape(merged);
  return out.view({batch, tokens, heads, frames, head_dim_}).permute({0, 3, 1, 2, 4}).reshape(merged);
}

at::Tensor STAttentionBase::normalized(const at::Tensor& qk, bool turned, int64_t first) const {
  const at::Tensor normal = at::layer_norm(qk, {head_dim_}, {}, {}, kNormEps);
  if (!turned || options_.rotary_window == 0) return normal;
  const auto [cosine, sine] = angles(
      first, qk.size(1), qk.options().dtype(qk.scalar_type() == at::kDouble ? at::kDouble : at::kFloat));
  return ops::rope_register(normal, cosine, sine);
}

std::pair<at::Tensor, at::Tensor> STAttentionBase::angles(int64_t first, int64_t frames,
                                                          const at::TensorOptions& options) const {
  const auto exact = options.dtype(at::kDouble);
  // Pair i of head_dim / 2 turns by base^(-2 i / head_dim) a frame; each half of the head holds half of them,
  // and the two channels of a pair stand head_dim / 4 apart.
  const at::Tensor pairs = at::arange(head_dim_ / 2, exact).view({2, 1, head_dim_ / 4});
  const at::Tensor frequency = at::pow(kRotaryBase, pairs * (-2.0 / static_cast<double>(head_dim_)))
                                   .expand({2, 2, head_dim_ / 4})
                                   .reshape({1, head_dim_});
  const at::Tensor angle = at::arange(first, first + frames, exact).unsqueeze(1) * frequency;
  return {angle.cos().to(options.dtype()), angle.sin().to(options.dtype())};
}

at::Tensor STAttentionBase::attend_cached_and_add(const at::Tensor& x, torch::nn::AnyModule& norm,
                                                  TemporalCache& cache, int64_t layer) {
  const auto* layer_norm = fusable_norm(norm, x, qkv_->weight);
  if (!layer_norm) return x + proj_->forward(attention_cached(project(norm.forward(x)), cache, layer));
  return ops::linear_residual(attention_cached(project_normalized(x, *layer_norm), cache, layer),
                              proj_->weight, proj_->bias, x);
}

at::Tensor STAttentionBase::attention_cached(const at::Tensor& qkv, TemporalCache& cache, int64_t layer) {
  const int64_t frames = qkv.size(1);
  if (frames == 1) {
    return qkv.is_cpu() ? attend_past_fused(qkv, cache, layer) : attend_past(qkv, cache, layer);
  }
  TORCH_CHECK(cache.length() == 0, "ST attention: ", frames,
              " new frames at once need an empty cache, it holds ", cache.length());
  cache.write(layer, normalized(qkv.select(3, 1), true, 0), qkv.select(3, 2));
  return attention_of(qkv, Axis::time, /*causal=*/true);
}

at::Tensor STAttentionBase::attend_past(const at::Tensor& qkv, TemporalCache& cache, int64_t layer) const {
  const int64_t batch = qkv.size(0), tokens = qkv.size(2), heads = options_.num_heads;
  const at::Tensor qk = normalized(qkv.narrow(3, 0, 2), true, cache.length());
  cache.write(layer, qk.select(3, 1), qkv.select(3, 2));
  const auto seen = cache.seen(layer);  // (B,N,T,H,d)
  const auto sequences = [](const at::Tensor& t) { return t.transpose(2, 3).flatten(0, 1); };
  // A single frame sees all that is there, so it needs no mask.
  return at::scaled_dot_product_attention(sequences(qk.select(3, 0).transpose(1, 2)), sequences(seen.keys),
                                          sequences(seen.values), {}, 0.0, false, scale_)
      .reshape({batch, 1, tokens, heads * head_dim_});
}

at::Tensor STAttentionBase::attend_past_fused(const at::Tensor& packed, TemporalCache& cache,
                                              int64_t layer) const {
  const at::Tensor qkv = packed.contiguous();
  const int64_t batch = qkv.size(0), tokens = qkv.size(2), heads = options_.num_heads;
  const auto& ring = cache.ring(layer, {batch, tokens, heads, head_dim_}, qkv.options());
  at::Tensor cosine, sine;
  if (options_.rotary_window > 0) {
    std::tie(cosine, sine) = angles(cache.length(), 1, qkv.options().dtype(at::kDouble));
  }
  const at::Tensor out = at::empty({batch, 1, tokens, heads * head_dim_}, qkv.options());
  ops::attend_past(ops::PastAttention{.dtype = qkv.scalar_type(),
                                      .rows = batch * tokens,
                                      .heads = heads,
                                      .head_dim = head_dim_,
                                      .scale = scale_,
                                      .qkv = qkv.const_data_ptr(),
                                      .keys = ring.keys.mutable_data_ptr(),
                                      .values = ring.values.mutable_data_ptr(),
                                      .slots = cache.slots(),
                                      .first = cache.slot(cache.first_seen()),
                                      .count = cache.length() + 1 - cache.first_seen(),
                                      .cosine = cosine.defined() ? cosine.const_data_ptr<double>() : nullptr,
                                      .sine = sine.defined() ? sine.const_data_ptr<double>() : nullptr,
                                      .out = out.mutable_data_ptr()});
  return out;
}

}  // namespace genie::nn
