#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "genie/nn/linear.h"
#include "genie/nn/packed_tokens.h"
#include "genie/nn/rebindable.h"
#include "genie/nn/rope_block.h"

namespace genie::models {

/// Learned embeddings (1,1,dim) that stand for hidden tokens, named 0, 1, ...
class MaskTokensImpl : public torch::nn::Module, public nn::Rebindable {
 public:
  MaskTokensImpl(int64_t count, int64_t dim);
  const at::Tensor& get(int64_t index) const { return tokens_[static_cast<size_t>(index)]; }
  int64_t count() const { return static_cast<int64_t>(tokens_.size()); }
  void rebind(const std::string& name, const at::Tensor& tensor) override {
    tokens_[std::stoul(name)] = tensor;
  }

 private:
  std::vector<at::Tensor> tokens_;
};
TORCH_MODULE(MaskTokens);

struct VisionPredictorOptions {
  nn::GridSize grid;            ///< of all tokens of a clip
  int64_t embed_dim = 768;      ///< the encoder's width
  nn::RoPEStackOptions blocks;  ///< the predictor's own width is blocks.dim
  int64_t num_mask_tokens = 2;
};

/// The predictor of V-JEPA 2 (arXiv 2506.09985; facebookresearch/vjepa2, src/models/predictor.py), with its
/// weight names: from the encoder's outputs at some positions, its outputs at others.
class VisionPredictorImpl : public torch::nn::Module {
 public:
  explicit VisionPredictorImpl(const VisionPredictorOptions& options);

  /// x (R,K,embed_dim), the encoder's output for `masks_x`, to (R,P,embed_dim) for the tokens of `masks_y`,
  /// in their order. Masks are int64 token ids (B,K) and (B,P), several of one K and P make R = masks*B.
  /// `mask_index` modulo num_mask_tokens chooses the mask token.
  at::Tensor forward(const at::Tensor& x, const std::vector<at::Tensor>& masks_x,
                     const std::vector<at::Tensor>& masks_y, int64_t mask_index = 1);

  const VisionPredictorOptions& options() const { return options_; }

 private:
  VisionPredictorOptions options_;
  nn::Linear predictor_embed_{nullptr}, predictor_proj_{nullptr};
  MaskTokens mask_tokens_{nullptr};
  torch::nn::ModuleList predictor_blocks_{nullptr};
  torch::nn::LayerNorm predictor_norm_{nullptr};
};
TORCH_MODULE(VisionPredictor);

}  // namespace genie::models
