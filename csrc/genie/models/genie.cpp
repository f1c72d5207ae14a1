#include "genie/models/genie.h"

#include <ATen/ATen.h>

namespace genie::models {

GenieImpl::GenieImpl(const config::Config& config) : config_(config) {
  const auto& data = config.data;
  tokenizer_ = register_module("tokenizer",
                               VideoTokenizer(config.tokenizer, data.num_frames, data.height, data.width));
  latent_action_ = register_module(
      "latent_action", LatentActionModel(config.latent_action, data.num_frames, data.height, data.width));
  dynamics_ = register_module(
      "dynamics", DynamicsModel(config.dynamics, data.num_frames, tokenizer_->grid(),
                                config.tokenizer.quantizer.num_codes, latent_action_->num_actions()));
}

at::Tensor to_model_input(const at::Tensor& video, const at::Device& device) {
  TORCH_CHECK_VALUE(video.dim() == 5 && video.size(4) == 3 && video.scalar_type() == at::kByte,
                    "expected uint8 video (B,T,H,W,3), got ", video.scalar_type(), " ", video.sizes());
  return video.to(device, /*non_blocking=*/true)
      .permute({0, 1, 4, 2, 3})
      .to(at::kFloat, false, false, at::MemoryFormat::Contiguous)
      .div_(255);
}

}  // namespace genie::models
