#include "genie/models/jepa.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace genie::models {

VisionTransformerOptions encoder_options(const config::JepaConfig& config) {
  const auto& c = config.encoder;
  VisionTransformerOptions options;
  options.patch_size = c.patch_size;
  options.tubelet_size = c.tubelet_size;
  options.blocks.dim = c.dim;
  options.blocks.depth = c.depth;
  options.blocks.heads = c.heads;
  options.blocks.mlp_ratio = c.mlp_ratio;
  options.blocks.drop_path = c.drop_path;
  options.blocks.checkpointing = c.gradient_checkpointing;
  if (c.use_area_attention) {
    options.blocks.areas =
        nn::AreaSplits{.spatial = c.area_spatial_splits, .temporal = c.area_temporal_splits};
  }
  if (!c.area_attention_layers.empty()) {
    options.blocks.first_area_layer = c.area_attention_layers[0];
    options.blocks.end_area_layer = c.area_attention_layers[1];
  }
  options.blocks.area_residual_scale = c.area_residual_scale;
  return options;
}

JepaImpl::JepaImpl(const config::JepaConfig& config, const nn::GridSize& grid) {
  const VisionTransformerOptions encoder = encoder_options(config);
  encoder_ = register_module("encoder", VisionTransformer(encoder));
  VisionPredictorOptions predictor;
  predictor.grid = grid;
  predictor.embed_dim = encoder.blocks.dim;
  predictor.blocks.dim = config.predictor.dim;
  predictor.blocks.depth = config.predictor.depth;
  predictor.blocks.heads = config.predictor.heads;
  predictor.blocks.mlp_ratio = config.predictor.mlp_ratio;
  predictor.blocks.checkpointing = encoder.blocks.checkpointing;
  if (config.predictor.use_area_attention) {
    predictor.blocks.areas = nn::AreaSplits{.spatial = config.encoder.area_spatial_splits,
                                            .temporal = config.encoder.area_temporal_splits};
    predictor.blocks.area_residual_scale = config.encoder.area_residual_scale;
  }
  predictor_ = register_module("predictor", VisionPredictor(predictor));
  VisionTransformerOptions target = encoder;
  target.blocks.drop_path = 0;
  target_encoder_ = register_module("target_encoder", VisionTransformer(target));
  for (const at::Tensor& parameter : target_encoder_->parameters()) parameter.set_requires_grad(false);
  copy_to_target();
}

at::Tensor JepaImpl::targets(const at::Tensor& video) {
  at::NoGradGuard no_grad;
  const at::Tensor output = target_encoder_->forward(video).to(at::kFloat);
  return at::layer_norm(output, {output.size(2)});
}

at::Tensor JepaImpl::predict(const at::Tensor& video, const at::Tensor& seen, const at::Tensor& hidden,
                             int64_t mask_index) {
  return predictor_->forward(encoder_->forward(video, {seen}), {seen}, {hidden}, mask_index);
}

void JepaImpl::update_target(double momentum) {
  at::NoGradGuard no_grad;
  const auto from = encoder_->parameters(), to = target_encoder_->parameters();
  at::_foreach_lerp_(to, from, 1 - momentum);
}

at::Tensor to_encoder_input(const at::Tensor& video) {
  const auto colours = [&](double r, double g, double b) {
    return at::tensor({r, g, b}, video.options()).view({3, 1, 1});
  };
  return ((video - colours(0.485, 0.456, 0.406)) / colours(0.229, 0.224, 0.225)).transpose(1, 2).contiguous();
}

}  // namespace genie::models
