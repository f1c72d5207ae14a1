#pragma once

#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include "genie/nn/frame_area_attention.h"
#include "genie/nn/mlp.h"
#include "genie/nn/video_block.h"

namespace genie::nn {

struct AreaBlockOptions {
  FrameAreaAttentionOptions attention;
  double mlp_ratio = 4;
  double drop = 0;
  double drop_path = 0;
};

/// x + area_attention(norm(x)), then + mlp(norm(x)): one joint space-time attention inside areas in place of
/// the spatial and the temporal one.
class AreaBlockImpl : public VideoBlock {
 public:
  explicit AreaBlockImpl(const AreaBlockOptions& options);
  at::Tensor forward_frames(const at::Tensor& x, bool causal) override;
  at::Tensor forward_cached(const at::Tensor& x, TemporalCache& cache, int64_t layer) override;

 private:
  torch::nn::LayerNorm norm1_{nullptr}, norm2_{nullptr};
  FrameAreaAttention attn_{nullptr};
  STMLP mlp_{nullptr};
  DropPath drop_path_{nullptr};
};
TORCH_MODULE(AreaBlock);

}  // namespace genie::nn
