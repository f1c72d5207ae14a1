#include "genie/nn/tubelet_embedding.h"

#include <ATen/ATen.h>

#include "genie/ops/linear/linear.h"

namespace genie::nn {

TubeletEmbeddingImpl::TubeletEmbeddingImpl(const TubeletOptions& options) : options_(options) {
  TORCH_CHECK_VALUE(
      options.patch_size >= 1 && options.tubelet_size >= 1 && options.channels >= 1 && options.dim >= 1,
      "TubeletEmbedding: patch_size, tubelet_size, channels and dim must be at least 1, got ",
      options.patch_size, ", ", options.tubelet_size, ", ", options.channels, ", ", options.dim);
  const torch::ExpandingArray<3> size({options.tubelet_size, options.patch_size, options.patch_size});
  proj_ = register_module(
      "proj", torch::nn::Conv3d(torch::nn::Conv3dOptions(options.channels, options.dim, size).stride(size)));
}

GridSize TubeletEmbeddingImpl::grid(const at::Tensor& video) const {
  TORCH_CHECK_VALUE(video.dim() == 5 && video.size(1) == options_.channels, "expected video (B,",
                    options_.channels, ",T,H,W), got ", video.sizes());
  TORCH_CHECK_TYPE(video.is_floating_point(), "expected floating-point video, got ", video.scalar_type());
  const int64_t frames = video.size(2), height = video.size(3), width = video.size(4);
  const int64_t t = options_.tubelet_size, p = options_.patch_size;
  TORCH_CHECK_VALUE(
      frames >= t && frames % t == 0 && height >= p && height % p == 0 && width >= p && width % p == 0,
      "video of ", frames, " frames of ", height, " x ", width, " pixels doesn't divide into tubelets of ", t,
      " frames of ", p, " x ", p, " pixels; crop or resize it");
  return {.frames = frames / t, .height = height / p, .width = width / p};
}

/// Each tubelet's pixels as a row (B*N, C*t*p*p), in the order of the convolution's weight.
at::Tensor TubeletEmbeddingImpl::unfold(const at::Tensor& video) const {
  const GridSize g = grid(video);
  const int64_t t = options_.tubelet_size, p = options_.patch_size, batch = video.size(0);
  return video.reshape({batch, options_.channels, g.frames, t, g.height, p, g.width, p})
      .permute({0, 2, 4, 6, 1, 3, 5, 7})
      .reshape({batch * g.count(), options_.channels * t * p * p});
}

at::Tensor TubeletEmbeddingImpl::project(const at::Tensor& tubelets) {
  return ops::linear(tubelets, proj_->weight.flatten(1), proj_->bias);
}

at::Tensor TubeletEmbeddingImpl::forward(const at::Tensor& video) {
  return project(unfold(video)).view({video.size(0), -1, options_.dim});
}

at::Tensor TubeletEmbeddingImpl::embed(const at::Tensor& video, const at::Tensor& tokens) {
  return project(unfold(video).index_select(0, tokens));
}

}  // namespace genie::nn
