#include "genie/models/latent_action_model.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "genie/models/transformer_factory.h"
#include "genie/nn/input_check.h"
#include "genie/nn/kmeans.h"

namespace genie::models {

ActionEncoderImpl::ActionEncoderImpl(const config::TransformerConfig& config, int64_t num_frames,
                                     const nn::PatchGrid& grid, int64_t code_dim) {
  embed_ = register_module("embed", nn::Linear(grid.values(), config.dim));
  embed_change_ = register_module("embed_change", nn::Linear(grid.values(), config.dim));
  position_ = register_module("position", make_position(config, num_frames, grid));
  action_token_ = register_parameter("action_token", at::randn({config.dim}) * 0.02);
  transformer_ = register_module("transformer", make_transformer(config, num_frames, grid, 1));
  head_ = register_module("head", nn::Linear(config.dim, code_dim));
  initialize_weights(*this, config.depth);
}

at::Tensor ActionEncoderImpl::forward(const at::Tensor& patches) {
  nn::check_input("LatentActionModel", "video's patches", patches, embed_->weight.size(1), embed_->weight);
  const int64_t batch = patches.size(0), frames = patches.size(1), tokens = patches.size(2);
  const at::Tensor change = at::cat({at::zeros_like(patches.narrow(1, 0, 1)),
                                     patches.narrow(1, 1, frames - 1) - patches.narrow(1, 0, frames - 1)},
                                    1);
  const at::Tensor x = position_->forward(embed_->forward(patches) + embed_change_->forward(change));
  const at::Tensor action =
      action_token_.to(x.scalar_type()).expand({batch, frames, 1, action_token_.size(0)});
  const at::Tensor out = transformer_->forward(at::cat({x, action}, 2));
  return head_->forward(out.select(2, tokens).narrow(1, 1, frames - 1));
}

FramePredictorImpl::FramePredictorImpl(const config::TransformerConfig& config, int64_t num_frames,
                                       const nn::PatchGrid& grid, int64_t code_dim) {
  embed_ = register_module("embed", nn::Linear(grid.values(), config.dim));
  embed_action_ = register_module("embed_action", nn::Linear(code_dim, config.dim));
  position_ = register_module("position", make_position(config, num_frames, grid));
  transformer_ = register_module("transformer", make_transformer(config, num_frames, grid));
  head_ = register_module("head", nn::Linear(config.dim, grid.values()));
  initialize_weights(*this, config.depth);
}

at::Tensor FramePredictorImpl::forward(const at::Tensor& patches, const at::Tensor& codes) {
  nn::check_input("LatentActionModel", "video's patches", patches, embed_->weight.size(1), embed_->weight);
  const at::Tensor x =
      position_->forward(embed_->forward(patches)) + embed_action_->forward(codes).unsqueeze(2);
  return head_->forward(transformer_->forward(x));
}

LatentActionModelImpl::LatentActionModelImpl(const config::LatentActionConfig& config, int64_t num_frames,
                                             int64_t height, int64_t width)
    : config_(config), num_frames_(num_frames), grid_{height, width, config.patch_size} {
  TORCH_CHECK_VALUE(num_frames >= 2,
                    "LatentActionModel: an action lies between two frames, got num_frames=", num_frames);
  encoder_ =
      register_module("encoder", ActionEncoder(config.encoder, num_frames, grid_, config.quantizer.code_dim));
  quantizer_ = register_module("quantizer", nn::VectorQuantizer(config.quantizer));
  predictor_ = register_module("predictor",
                               FramePredictor(config.decoder, num_frames, grid_, config.quantizer.code_dim));
  hidden_patch_ = register_parameter("hidden_patch", at::full({grid_.values()}, 0.5));
}

void LatentActionModelImpl::check_video(const at::Tensor& video) const {
  TORCH_CHECK_VALUE(video.dim() == 5 && video.size(1) >= 2 && video.size(1) <= num_frames_,
                    "LatentActionModel: expected video (B,T,3,H,W) with 2 <= T <= ", num_frames_, ", got ",
                    video.sizes());
}

LatentActionOutput LatentActionModelImpl::forward(const at::Tensor& video, const at::Tensor& hidden) {
  check_video(video);
  const int64_t steps = video.size(1) - 1;
  if (hidden.defined()) {
    TORCH_CHECK_TYPE(hidden.scalar_type() == at::kBool, "LatentActionModel: expected bool hidden, got ",
                     hidden.scalar_type());
    TORCH_CHECK_VALUE(hidden.sizes() == at::IntArrayRef({video.size(0), steps, grid_.count()}),
                      "LatentActionModel: expected hidden (B,T-1,N) = (", video.size(0), ",", steps, ",",
                      grid_.count(), "), got ", hidden.sizes());
    TORCH_CHECK_VALUE(hidden.device() == video.device(), "LatentActionModel: video is on ", video.device(),
                      ", hidden on ", hidden.device());
  }
  const at::Tensor patches = nn::patchify(video, grid_);
  LatentActionOutput out;
  out.previous = patches.narrow(1, 0, steps);
  out.target = patches.narrow(1, 1, steps);
  const nn::Quantized quantized = quantizer_->forward(encoder_->forward(patches));
  at::Tensor seen = out.previous;
  if (hidden.defined()) seen = at::where(hidden.unsqueeze(-1), hidden_patch_, seen);
  out.prediction = predict_patches(seen, quantized.values);
  out.actions = quantized.indices;
  out.quantizer_loss = quantized.loss;
  return out;
}

at::Tensor LatentActionModelImpl::predict_patches(const at::Tensor& seen, const at::Tensor& codes) {
  const at::Tensor change = predictor_->forward(seen, codes);
  return config_.loss == "mse" ? seen + change : at::logit(seen.clamp(0, 1), 1e-3) + change;
}

at::Tensor LatentActionModelImpl::predict(const at::Tensor& video, const at::Tensor& actions) {
  TORCH_CHECK_VALUE(actions.dim() == 2 && video.dim() == 5 && actions.sizes() == video.sizes().slice(0, 2) &&
                        actions.size(1) < num_frames_,
                    "LatentActionModel.predict: expected video (B,T,3,H,W) and actions (B,T) with T < ",
                    num_frames_, ", got ", video.sizes(), " and ", actions.sizes());
  const at::Tensor predicted =
      predict_patches(nn::patchify(video, grid_), quantizer_->lookup(actions)).to(at::kFloat);
  return nn::unpatchify(config_.loss == "mse" ? predicted : predicted.sigmoid(), grid_).clamp(0, 1);
}

at::Tensor LatentActionModelImpl::infer(const at::Tensor& video) {
  check_video(video);
  at::NoGradGuard no_grad;
  const at::Tensor encodings =
      encoder_->forward(nn::patchify(video, grid_)).to(quantizer_->codebook().scalar_type());
  return nn::nearest(encodings.flatten(0, 1), quantizer_->codebook())
      .view({video.size(0), video.size(1) - 1});
}

}  // namespace genie::models
