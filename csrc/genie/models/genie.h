#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "genie/config/config.h"
#include "genie/models/dynamics_model.h"
#include "genie/models/latent_action_model.h"
#include "genie/models/video_tokenizer.h"

namespace genie::models {

/// The three models of a configuration, as children `tokenizer`, `latent_action` and `dynamics`.
class GenieImpl : public torch::nn::Module {
 public:
  explicit GenieImpl(const config::Config& config);

  VideoTokenizer& tokenizer() { return tokenizer_; }
  const nn::PatchGrid& tokenizer_grid() const { return tokenizer_->grid(); }
  LatentActionModel& latent_action() { return latent_action_; }
  DynamicsModel& dynamics() { return dynamics_; }
  const config::Config& config() const { return config_; }

 private:
  config::Config config_;
  VideoTokenizer tokenizer_{nullptr};
  LatentActionModel latent_action_{nullptr};
  DynamicsModel dynamics_{nullptr};
};
TORCH_MODULE(Genie);

/// uint8 video (B,T,H,W,3) as it lies in a file, to float32 (B,T,3,H,W) in [0,1] on `device`.
at::Tensor to_model_input(const at::Tensor& video_BTHWC, const at::Device& device);

}  // namespace genie::models
