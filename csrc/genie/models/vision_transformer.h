#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <vector>

#include "genie/nn/packed_tokens.h"
#include "genie/nn/rope_block.h"
#include "genie/nn/tubelet_embedding.h"

namespace genie::models {

struct VisionTransformerOptions {
  int64_t patch_size = 16;
  int64_t tubelet_size = 2;
  int64_t channels = 3;
  nn::RoPEStackOptions blocks;
  std::vector<int64_t> out_layers = {};  ///< layers whose normalised output forward gives, rising
};

/// The video encoder of V-JEPA 2 (arXiv 2506.09985; facebookresearch/vjepa2,
/// src/models/vision_transformer.py) with its weight names, and with spatiotemporal area attention (pull
/// request 121 there) in some layers.
///
/// Tokens are put in order once, after masking, and all layers work on them as they then lie: unpadded, with
/// rotary positions and attention over segments. They are put back at the end and for each tapped layer.
class VisionTransformerImpl : public torch::nn::Module {
 public:
  explicit VisionTransformerImpl(const VisionTransformerOptions& options);

  /// video (B,C,T,H,W), of any size that divides into tubelets, to (B,N,dim). `masks`: token ids to keep,
  /// int64 (B,K), one or several of one K; the result is then (masks*B,K,dim), mask by mask, in the masks'
  /// order.
  at::Tensor forward(const at::Tensor& video_BCTHW, const std::vector<at::Tensor>& masks = {});
  /// The same for each of out_layers (or, without any, the last one).
  std::vector<at::Tensor> features(const at::Tensor& video_BCTHW, const std::vector<at::Tensor>& masks = {});

  const VisionTransformerOptions& options() const { return options_; }
  /// The grid of a video's tokens.
  nn::GridSize grid(const at::Tensor& video) const { return patch_embed_->grid(video); }

 private:
  VisionTransformerOptions options_;
  nn::TubeletEmbedding patch_embed_{nullptr};
  torch::nn::ModuleList blocks_{nullptr};
  torch::nn::LayerNorm norm_{nullptr};
};
TORCH_MODULE(VisionTransformer);

/// The ids (masks*B,K) of several masks (B,K). Raises ValueError where they don't fit `batch` or each other.
at::Tensor join_masks(const std::vector<at::Tensor>& masks, int64_t batch, const char* name);

}  // namespace genie::models
