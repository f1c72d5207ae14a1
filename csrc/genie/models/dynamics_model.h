#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <tuple>

#include "genie/config/model_config.h"
#include "genie/nn/linear.h"
#include "genie/nn/patches.h"
#include "genie/nn/positional_embedding.h"
#include "genie/nn/rebindable.h"
#include "genie/nn/st_transformer.h"

namespace genie::models {

/// Tokens (B,T,N), some of them masked, to (B,T,N,E).
class TokenEmbeddingImpl : public torch::nn::Module, public nn::Rebindable {
 public:
  TokenEmbeddingImpl(int64_t num_tokens, int64_t dim);
  /// `mask` bool (B,T,N): true shows the mask embedding in place of the token's.
  at::Tensor forward(const at::Tensor& tokens_BTN, const at::Tensor& mask_BTN);
  at::Tensor& weight() { return token_->weight; }
  void rebind(const std::string&, const at::Tensor& tensor) override { mask_ = tensor; }

 private:
  torch::nn::Embedding token_{nullptr};
  at::Tensor mask_;
};
TORCH_MODULE(TokenEmbedding);

/// Actions that led to frames, (B,T), to (B,T,E). The id num_actions stands for "no action": what led to a
/// first frame.
class ActionEmbeddingImpl : public torch::nn::Module {
 public:
  ActionEmbeddingImpl(int64_t num_actions, int64_t dim);
  at::Tensor forward(const at::Tensor& leading_BT) { return action_->forward(leading_BT); }

 private:
  torch::nn::Embedding action_{nullptr};
};
TORCH_MODULE(ActionEmbedding);

/// The MaskGIT (arXiv 2202.04200) dynamics model of Genie: given all frames' tokens, some masked, and the
/// actions between frames, the logits of every token. Frame t sees frames and actions up to its own.
class DynamicsModelImpl : public torch::nn::Module {
 public:
  DynamicsModelImpl(const config::DynamicsConfig& config, int64_t num_frames, const nn::PatchGrid& grid,
                    int64_t num_tokens, int64_t num_actions);

  /// tokens int64 (B,T,N), actions int64 (B,T-1), mask bool (B,T,N) to logits (B,T,N,K). T <= num_frames(),
  /// or any with rotary time positions: a layer's frame then sees the last num_frames() frames.
  at::Tensor forward(const at::Tensor& tokens_BTN, const at::Tensor& actions_BT, const at::Tensor& mask_BTN);
  /// The same up to the output layer: (B,T,N,E).
  at::Tensor features(const at::Tensor& tokens_BTN, const at::Tensor& actions_BT, const at::Tensor& mask_BTN);
  /// The same of ids that check_tokens and check_actions have passed, which read them back from a device.
  at::Tensor features_unchecked(const at::Tensor& tokens_BTN, const at::Tensor& actions_BT,
                                const at::Tensor& mask_BTN);
  /// features() of new frames behind those committed to the cache (their keys and values are written, not
  /// committed). `leading` int64 (B,T_new): the action that led to each new frame, num_actions() for none.
  /// T_new is 1 unless the cache is empty. Ids are not checked: check_tokens and check_actions do that once.
  at::Tensor features_cached(const at::Tensor& tokens_BTN, const at::Tensor& leading_BT,
                             const at::Tensor& mask_BTN, nn::TemporalCache& cache);
  /// An empty cache for features_cached, in which a frame sees num_frames() frames. With rotary time
  /// positions it takes any number of frames and can go back by `history`, else num_frames() of them.
  nn::TemporalCache make_cache(int64_t history = 0) const;
  /// Throw unless these are int64 of tokens or actions that exist: TypeError or IndexError.
  void check_tokens(const at::Tensor& tokens) const;
  void check_actions(const at::Tensor& actions) const;
  /// Logits (...,K) of features (...,E).
  at::Tensor logits(const at::Tensor& features);
  /// The cross-entropy of the masked tokens, summed, and how many of them have the largest logit, from
  /// features (B,T,N,E), the tokens there (B,T,N) and mask (B,T,N). Only their logits are computed, and not
  /// kept: see ops::linear_cross_entropy.
  std::tuple<at::Tensor, at::Tensor> cross_entropy(const at::Tensor& features_BTNE,
                                                   const at::Tensor& tokens_BTN, const at::Tensor& mask_BTN,
                                                   double label_smoothing = 0);

  /// The same up to rounding by tensors whose shapes don't depend on the mask, and with nothing read back
  /// from the device: the logits of all tokens are computed and kept.
  std::tuple<at::Tensor, at::Tensor> cross_entropy_of_fixed_shape(const at::Tensor& features_BTNE,
                                                                  const at::Tensor& tokens_BTN,
                                                                  const at::Tensor& mask_BTN,
                                                                  double label_smoothing = 0);

  /// Starts token embeddings and output layer from the tokenizer's codebook (K,D), so that similar tokens
  /// start alike.
  void initialize_from(const at::Tensor& codebook, uint64_t seed);

  int64_t num_frames() const { return num_frames_; }
  int64_t tokens_per_frame() const { return tokens_per_frame_; }
  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_actions() const { return num_actions_; }
  const config::DynamicsConfig& config() const { return config_; }

 private:
  void check_device(const at::Tensor& input, const char* what) const;
  /// Shapes, types and devices.
  void check_layout(const at::Tensor& tokens, const at::Tensor& mask) const;
  /// These and the ids.
  void check_inputs(const at::Tensor& tokens, const at::Tensor& mask) const;
  at::Tensor embed(const at::Tensor& tokens, const at::Tensor& leading, const at::Tensor& mask,
                   nn::TemporalCache* cache);
  at::Tensor only_frame_tokens(const at::Tensor& x) const;
  /// What cross-attention looks at: embeddings of actions and of when they were taken, (B,T,E).
  at::Tensor action_memory(const at::Tensor& leading, int64_t offset);
  /// Of the last `frames` frames that the memory (B,T,E) holds actions to.
  nn::AfterBlock cross_attention(const at::Tensor& action_memory, int64_t frames);

  config::DynamicsConfig config_;
  int64_t num_frames_, tokens_per_frame_, num_tokens_, num_actions_;
  TokenEmbedding token_{nullptr};
  ActionEmbedding action_{nullptr};
  nn::CombinedPositionalEmbedding position_{nullptr};
  nn::STTransformer transformer_{nullptr};
  nn::Linear previous_{nullptr};  // with previous_frame_input, else null
  // With action_conditioning cross_attention, else null.
  torch::nn::ModuleList cross_{nullptr};
  nn::TemporalPositionalEmbedding action_position_{nullptr};
  nn::Linear head_{nullptr};
};
TORCH_MODULE(DynamicsModel);

}  // namespace genie::models
