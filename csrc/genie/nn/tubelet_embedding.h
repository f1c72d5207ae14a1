#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "genie/nn/packed_tokens.h"

namespace genie::nn {

struct TubeletOptions {
  int64_t patch_size = 16;   ///< pixels a side
  int64_t tubelet_size = 2;  ///< frames
  int64_t channels = 3;
  int64_t dim = 768;
};

/// A linear map of each tubelet (patch_size x patch_size pixels of tubelet_size frames), with the weights of
/// V-JEPA 2's PatchEmbed3D: `proj.weight` (dim, channels, tubelet, patch, patch).
class TubeletEmbeddingImpl : public torch::nn::Module {
 public:
  explicit TubeletEmbeddingImpl(const TubeletOptions& options);

  /// video (B,C,T,H,W) to (B,N,dim), tokens frame by frame and row by row.
  at::Tensor forward(const at::Tensor& video_BCTHW);
  /// Only some tokens: `tokens` int64 (M), numbers b*N + id, to (M,dim).
  at::Tensor embed(const at::Tensor& video_BCTHW, const at::Tensor& tokens);
  /// The grid of a video's tokens. Raises ValueError where the video doesn't divide into tubelets.
  GridSize grid(const at::Tensor& video_BCTHW) const;

 private:
  at::Tensor unfold(const at::Tensor& video) const;
  at::Tensor project(const at::Tensor& tubelets);

  TubeletOptions options_;
  torch::nn::Conv3d proj_{nullptr};
};
TORCH_MODULE(TubeletEmbedding);

}  // namespace genie::nn
