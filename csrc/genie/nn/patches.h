#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "genie/nn/linear.h"

namespace genie::nn {

/// The grid of patches of frames of height x width pixels, padded right and bottom to a multiple of the
/// patch.
struct PatchGrid {
  int64_t height = 0, width = 0;  ///< of a frame, pixels
  int64_t patch_size = 1;         ///< pixels a side
  int64_t rows() const { return (height + patch_size - 1) / patch_size; }
  int64_t columns() const { return (width + patch_size - 1) / patch_size; }
  int64_t count() const { return rows() * columns(); }            ///< N, patches a frame
  int64_t values() const { return 3 * patch_size * patch_size; }  ///< P, numbers a patch
};

/// Video (B,T,3,H,W) to patches (B,T,N,P), row by row; a patch's values run channel, row, column. Frames that
/// are no multiple of the patch are padded by repeating their last row and column. Throws where the frame
/// size is another one.
at::Tensor patchify(const at::Tensor& video_BTCHW, const PatchGrid& grid);

/// The inverse, padding cut off: patches (B,T,N,P) to video (B,T,3,H,W).
at::Tensor unpatchify(const at::Tensor& patches_BTNP, const PatchGrid& grid);

/// A linear map of each patch: video (B,T,3,H,W) to (B,T,N,dim).
class PatchEmbeddingImpl : public torch::nn::Module {
 public:
  PatchEmbeddingImpl(int64_t height, int64_t width, int64_t patch_size, int64_t dim);
  at::Tensor forward(const at::Tensor& video_BTCHW);
  /// The same from patches (B,T,N,P).
  at::Tensor embed(const at::Tensor& patches_BTNP) { return proj_->forward(patches_BTNP); }
  const PatchGrid& grid() const { return grid_; }

 private:
  PatchGrid grid_;
  Linear proj_{nullptr};
};
TORCH_MODULE(PatchEmbedding);

}  // namespace genie::nn
