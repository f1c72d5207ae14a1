#include "genie/nn/patches.h"

#include <ATen/ATen.h>

#include "genie/nn/input_check.h"

namespace genie::nn {

at::Tensor patchify(const at::Tensor& video, const PatchGrid& grid) {
  TORCH_CHECK_VALUE(
      video.dim() == 5 && video.size(2) == 3 && video.size(3) == grid.height && video.size(4) == grid.width,
      "expected video (B,T,3,", grid.height, ",", grid.width, "), got ", video.sizes(),
      "; resize the video or build the model for its size");
  TORCH_CHECK_TYPE(video.is_floating_point(), "expected floating-point video in [0,1], got ",
                   video.scalar_type(), "; for uint8 pass video.float() / 255");
  const int64_t batch = video.size(0), frames = video.size(1), p = grid.patch_size, rows = grid.rows(),
                columns = grid.columns();
  at::Tensor padded = video;
  if (rows * p != grid.height || columns * p != grid.width) {
    padded =
        at::replication_pad2d(video.flatten(0, 1), {0, columns * p - grid.width, 0, rows * p - grid.height})
            .view({batch, frames, 3, rows * p, columns * p});
  }
  return padded.reshape({batch, frames, 3, rows, p, columns, p})
      .permute({0, 1, 3, 5, 2, 4, 6})
      .reshape({batch, frames, rows * columns, 3 * p * p});
}

at::Tensor unpatchify(const at::Tensor& patches, const PatchGrid& grid) {
  TORCH_CHECK_VALUE(patches.dim() == 4 && patches.size(2) == grid.count() && patches.size(3) == grid.values(),
                    "expected patches (B,T,", grid.count(), ",", grid.values(), "), got ", patches.sizes());
  const int64_t batch = patches.size(0), frames = patches.size(1), p = grid.patch_size, rows = grid.rows(),
                columns = grid.columns();
  return patches.view({batch, frames, rows, columns, 3, p, p})
      .permute({0, 1, 4, 2, 5, 3, 6})
      .reshape({batch, frames, 3, rows * p, columns * p})
      .narrow(3, 0, grid.height)
      .narrow(4, 0, grid.width);
}

PatchEmbeddingImpl::PatchEmbeddingImpl(int64_t height, int64_t width, int64_t patch_size, int64_t dim)
    : grid_{height, width, patch_size} {
  TORCH_CHECK_VALUE(height >= 1 && width >= 1 && patch_size >= 1 && dim >= 1,
                    "PatchEmbedding: height, width, patch_size and dim must be at least 1, got ", height,
                    ", ", width, ", ", patch_size, ", ", dim);
  proj_ = register_module("proj", Linear(grid_.values(), dim));
}

at::Tensor PatchEmbeddingImpl::forward(const at::Tensor& video) {
  const at::Tensor patches = patchify(video, grid_);
  check_dtype_and_device("PatchEmbedding", "video", video, proj_->weight);
  return proj_->forward(patches);
}

}  // namespace genie::nn
