#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <vector>

#include "genie/config/config.h"
#include "genie/models/predictor.h"
#include "genie/models/vision_transformer.h"

namespace genie::models {

/// The encoder's options of a configuration's section jepa.
VisionTransformerOptions encoder_options(const config::JepaConfig& config);

/// What phase jepa trains, as children `encoder`, `predictor` and `target_encoder` (without gradient): masked
/// latent prediction of V-JEPA 2 (arXiv 2506.09985).
class JepaImpl : public torch::nn::Module {
 public:
  /// `grid`: of the tokens of a clip.
  JepaImpl(const config::JepaConfig& config, const nn::GridSize& grid);

  /// What the target encoder gives for all tokens of video (B,C,T,H,W), each normalised over its channels:
  /// (B,N,dim), without gradient.
  at::Tensor targets(const at::Tensor& video);
  /// The prediction for the tokens `hidden` (B,P) from the tokens `seen` (B,K): (B,P,dim).
  at::Tensor predict(const at::Tensor& video, const at::Tensor& seen, const at::Tensor& hidden,
                     int64_t mask_index);
  /// target = momentum * target + (1 - momentum) * encoder.
  void update_target(double momentum);
  /// Makes the target encoder a copy of the encoder.
  void copy_to_target() { update_target(0); }

 private:
  VisionTransformer encoder_{nullptr}, target_encoder_{nullptr};
  VisionPredictor predictor_{nullptr};
};
TORCH_MODULE(Jepa);

/// Video in [0,1] as V-JEPA's encoders take it: (B,T,3,H,W) to (B,3,T,H,W), each colour less its mean over
/// its deviation in ImageNet.
at::Tensor to_encoder_input(const at::Tensor& video_BTCHW);

}  // namespace genie::models
