#include "genie/nn/rope_block.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/modules/conv.h>

#include <algorithm>
#include <cmath>

#include "genie/nn/checkpoint.h"

namespace genie::nn {

RoPEBlockImpl::RoPEBlockImpl(const RoPEBlockOptions& options) : areas_(options.areas.has_value()) {
  const int64_t dim = options.attention.dim;
  const auto norm = [&] { return torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim}).eps(1e-6)); };
  norm1_ = register_module("norm1", norm());
  if (options.areas) {
    attn_ = std::make_shared<RoPEAreaAttentionImpl>(
        RoPEAreaAttentionOptions{.attention = options.attention,
                                 .spatial_splits = options.areas->spatial,
                                 .temporal_splits = options.areas->temporal,
                                 .residual_scale = options.residual_scale});
  } else {
    attn_ = std::make_shared<RoPEAttentionImpl>(options.attention);
  }
  register_module("attn", attn_);
  norm2_ = register_module("norm2", norm());
  mlp_ = register_module("mlp", STMLP(dim, static_cast<int64_t>(static_cast<double>(dim) * options.mlp_ratio),
                                      dim, "gelu", options.drop));
  drop_path_ = register_module("drop_path", DropPath(options.drop_path));
}

at::Tensor RoPEBlockImpl::drop_sequences(const at::Tensor& x, const PackedTokens& tokens) {
  return drop_path_->forward(x.view({tokens.sequences, tokens.tokens, x.size(1)})).view(x.sizes());
}

at::Tensor RoPEBlockImpl::forward(const at::Tensor& input, const PackedTokens& tokens) {
  const at::Tensor& offsets = areas_ ? tokens.area_offsets : tokens.sequence_offsets;
  const at::Tensor x =
      input +
      drop_sequences(attn_->forward_segments(norm1_->forward(input), tokens.positions, tokens.grid.height,
                                             tokens.grid.width, offsets, tokens.tokens),
                     tokens);
  if (!drop_path_->active()) return mlp_->add_to(x, *norm2_, *drop_path_);
  return x + drop_sequences(mlp_->forward(norm2_->forward(x)), tokens);
}

RoPEBlock make_rope_block(const RoPEStackOptions& options, int64_t index) {
  const int64_t end = options.end_area_layer.value_or(options.depth * 3 / 4);
  TORCH_CHECK_VALUE(0 <= options.first_area_layer && options.first_area_layer <= end && end <= options.depth,
                    "area_attention_layers must be [start, end] with 0 <= start <= end <= depth ",
                    options.depth, ", got [", options.first_area_layer, ", ", end, "]");
  TORCH_CHECK_VALUE(options.mlp_ratio > 0, "mlp_ratio must be positive, got ", options.mlp_ratio);
  RoPEBlockOptions block;
  block.attention.dim = options.dim;
  block.attention.num_heads = options.heads;
  block.attention.qkv_bias = options.qkv_bias;
  block.attention.qk_scale = options.qk_scale;
  block.attention.proj_drop = options.drop;
  if (options.areas && index >= options.first_area_layer && index < end) block.areas = options.areas;
  block.residual_scale = options.area_residual_scale;
  block.mlp_ratio = options.mlp_ratio;
  block.drop = options.drop;
  block.drop_path = options.depth > 1 ? options.drop_path * static_cast<double>(index) /
                                            static_cast<double>(options.depth - 1)
                                      : 0;
  return RoPEBlock(block);
}

std::optional<AreaSplits> areas_in_use(const RoPEStackOptions& options) {
  const int64_t end = options.end_area_layer.value_or(options.depth * 3 / 4);
  return options.first_area_layer < end ? options.areas : std::nullopt;
}

at::Tensor run_block(RoPEBlockImpl& block, const at::Tensor& x, const PackedTokens& tokens,
                     bool checkpointing) {
  if (!checkpointing) return block.forward(x, tokens);
  // Backward may come when nobody else holds the module any more.
  const auto held = std::static_pointer_cast<RoPEBlockImpl>(block.shared_from_this());
  return checkpoint([held, tokens](const at::Tensor& input) { return held->forward(input, tokens); }, x,
                    [held] { return held->parameters(); });
}

void initialize_vjepa(torch::nn::Module& module) {
  at::NoGradGuard no_grad;
  for (const auto& item : module.named_parameters()) {
    const bool weight = item.key().ends_with(".weight");
    if (weight && item.value().dim() >= 2) item.value().normal_(0, 0.02).clamp_(-2, 2);
    if (item.key().ends_with(".bias")) item.value().zero_();
  }
}

void rescale_block(RoPEBlockImpl& block, int64_t layer) {
  at::NoGradGuard no_grad;
  auto parameters = block.named_parameters();
  for (const char* name : {"attn.proj.weight", "mlp.fc2.weight"}) {
    parameters[name].div_(std::sqrt(2.0 * static_cast<double>(layer)));
  }
}

}  // namespace genie::nn
