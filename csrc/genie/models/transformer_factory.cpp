#include "genie/models/transformer_factory.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/modules/linear.h>

#include <algorithm>
#include <cmath>
#include <optional>

namespace genie::models {
namespace {

bool ends_with(const std::string& text, const std::string& tail) {
  return text.size() >= tail.size() && text.compare(text.size() - tail.size(), tail.size(), tail) == 0;
}

}  // namespace

nn::STTransformer make_transformer(const config::TransformerConfig& config, int64_t num_frames,
                                   const nn::PatchGrid& grid, int64_t further_tokens) {
  nn::STTransformerOptions options;
  options.num_frames = num_frames;
  options.num_patches_per_frame = grid.count() + further_tokens;
  options.dim = config.dim;
  options.depth = config.depth;
  options.num_heads = config.heads;
  options.head_dim = config.head_dim;
  options.mlp_ratio = config.mlp_ratio;
  options.drop_rate = config.dropout;
  options.attn_drop_rate = config.attention_dropout;
  options.drop_path_rate = config.drop_path;
  options.gradient_checkpointing = config.gradient_checkpointing;
  options.rotary_time = config.rotary_time();
  options.frame.rows = grid.rows();
  options.frame.columns = grid.columns();
  options.frame.vit5 = config.spatial_attention == "vit5";
  options.frame.num_registers = config.num_registers;
  if (config.use_area_attention) {
    const auto& layers = config.area_attention_layers;
    options.frame.area = nn::AreaLayers{
        .splits = {.spatial = config.area_spatial_splits, .temporal = config.area_temporal_splits},
        .first_layer = layers.empty() ? 0 : layers[0],
        .end_layer = layers.empty() ? config.depth * 3 / 4 : layers[1],
        .residual_scale = config.area_residual_scale};
  }
  return nn::STTransformer(options);
}

nn::CombinedPositionalEmbedding make_position(const config::TransformerConfig& config, int64_t num_frames,
                                              const nn::PatchGrid& grid) {
  const auto frames = config.rotary_time() ? std::nullopt : std::optional(num_frames);
  return nn::CombinedPositionalEmbedding(frames, grid.rows(), grid.columns(), config.dim);
}

void initialize_weights(torch::nn::Module& module, int64_t depth) {
  constexpr double kStd = 0.02;
  at::NoGradGuard no_grad;
  for (const auto& item : module.named_modules("", /*include_self=*/false)) {
    auto* linear = item.value()->as<torch::nn::LinearImpl>();
    if (!linear) continue;
    const bool writes_residual = ends_with(item.key(), ".proj") || ends_with(item.key(), ".fc2");
    linear->weight.normal_(0, writes_residual ? kStd / std::sqrt(2.0 * std::max<int64_t>(depth, 1)) : kStd);
    if (linear->bias.defined()) linear->bias.zero_();
  }
}

}  // namespace genie::models
