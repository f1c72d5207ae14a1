#include "genie/nn/area_block.h"

#include <ATen/ATen.h>

#include "genie/nn/input_check.h"

namespace genie::nn {

AreaBlockImpl::AreaBlockImpl(const AreaBlockOptions& options) {
  const int64_t dim = options.attention.area.attention.dim;
  const auto norm = [&] { return torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim}).eps(1e-5)); };
  norm1_ = register_module("norm1", norm());
  attn_ = register_module("attn", FrameAreaAttention(options.attention));
  norm2_ = register_module("norm2", norm());
  mlp_ = register_module(
      "mlp", STMLP(dim, mlp_width("AreaBlock", dim, options.mlp_ratio), dim, "gelu", options.drop));
  drop_path_ = register_module("drop_path", DropPath(options.drop_path));
}

at::Tensor AreaBlockImpl::forward_frames(const at::Tensor& input, bool causal) {
  const at::Tensor x = input + drop_path_->forward(attn_->forward(norm1_->forward(input), causal));
  return mlp_->add_to(x, *norm2_, *drop_path_);
}

at::Tensor AreaBlockImpl::forward_cached(const at::Tensor& input, TemporalCache& cache, int64_t layer) {
  const at::Tensor x = input + attn_->forward_cached(norm1_->forward(input), cache, layer);
  return mlp_->add_to(x, *norm2_, *drop_path_);
}

}  // namespace genie::nn
