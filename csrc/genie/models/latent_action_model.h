#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "genie/config/model_config.h"
#include "genie/nn/linear.h"
#include "genie/nn/patches.h"
#include "genie/nn/positional_embedding.h"
#include "genie/nn/rebindable.h"
#include "genie/nn/st_transformer.h"
#include "genie/nn/vector_quantizer.h"

namespace genie::models {

/// Frames to the actions between them: patches (B,T,N,P) to encodings (B,T-1,D). The action between frames t
/// and t+1 is read at frame t+1, so it sees that frame and all before, none after. Each frame's patches come
/// with their change since the frame before.
class ActionEncoderImpl : public torch::nn::Module, public nn::Rebindable {
 public:
  ActionEncoderImpl(const config::TransformerConfig& config, int64_t num_frames, const nn::PatchGrid& grid,
                    int64_t code_dim);
  at::Tensor forward(const at::Tensor& patches_BTNP);
  void rebind(const std::string&, const at::Tensor& tensor) override { action_token_ = tensor; }

 private:
  nn::Linear embed_{nullptr}, embed_change_{nullptr}, head_{nullptr};
  nn::CombinedPositionalEmbedding position_{nullptr};
  at::Tensor action_token_;  // (E): a further token of each frame, whose output is the action
  nn::STTransformer transformer_{nullptr};
};
TORCH_MODULE(ActionEncoder);

/// Past frames and actions to the change that follows: patches (B,T-1,N,P) of frames 1..T-1 and codes
/// (B,T-1,D) to what is added to each frame to give the next, (B,T-1,N,P).
class FramePredictorImpl : public torch::nn::Module {
 public:
  FramePredictorImpl(const config::TransformerConfig& config, int64_t num_frames, const nn::PatchGrid& grid,
                     int64_t code_dim);
  at::Tensor forward(const at::Tensor& patches_BTNP, const at::Tensor& codes_BTD);

 private:
  nn::Linear embed_{nullptr}, embed_action_{nullptr}, head_{nullptr};
  nn::CombinedPositionalEmbedding position_{nullptr};
  nn::STTransformer transformer_{nullptr};
};
TORCH_MODULE(FramePredictor);

struct LatentActionOutput {
  at::Tensor target;  ///< (B,T-1,N,P): patches of frames 2..T
  at::Tensor
      prediction;       ///< (B,T-1,N,P): predicted patches; logits of them with loss "sigmoid_cross_entropy"
  at::Tensor previous;  ///< (B,T-1,N,P): patches of frames 1..T-1, unmasked
  at::Tensor actions;   ///< int64 (B,T-1)
  at::Tensor quantizer_loss;  ///< scalar
};

/// The latent action model of Genie: a small codebook is all that passes from the next frame to its
/// prediction, so its entries come to stand for what was done.
class LatentActionModelImpl : public torch::nn::Module, public nn::Rebindable {
 public:
  LatentActionModelImpl(const config::LatentActionConfig& config, int64_t num_frames, int64_t height,
                        int64_t width);

  /// video (B,T,3,H,W) in [0,1], 2 <= T <= num_frames. `hidden` (B,T-1,N) bool hides past patches from the
  /// predictor; undefined hides none.
  LatentActionOutput forward(const at::Tensor& video_BTCHW, const at::Tensor& hidden_BTN = {});
  /// The frames that follow each of video (B,T-1,3,H,W) under actions int64 (B,T-1): (B,T-1,3,H,W) in [0,1].
  at::Tensor predict(const at::Tensor& video_BTCHW, const at::Tensor& actions_BT);
  /// Actions between neighbouring frames: video (B,T,3,H,W) to int64 (B,T-1).
  at::Tensor infer(const at::Tensor& video_BTCHW);
  void rebind(const std::string&, const at::Tensor& tensor) override { hidden_patch_ = tensor; }

  nn::VectorQuantizer& quantizer() { return quantizer_; }
  const nn::PatchGrid& grid() const { return grid_; }
  int64_t num_frames() const { return num_frames_; }
  int64_t num_actions() const { return config_.quantizer.num_codes; }
  const config::LatentActionConfig& config() const { return config_; }

 private:
  void check_video(const at::Tensor& video) const;
  at::Tensor predict_patches(const at::Tensor& seen, const at::Tensor& codes);

  config::LatentActionConfig config_;
  int64_t num_frames_;
  nn::PatchGrid grid_;
  ActionEncoder encoder_{nullptr};
  nn::VectorQuantizer quantizer_{nullptr};
  FramePredictor predictor_{nullptr};
  at::Tensor hidden_patch_;  // (P): shown in place of a hidden patch
};
TORCH_MODULE(LatentActionModel);

}  // namespace genie::models
