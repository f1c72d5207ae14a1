#include "genie/models/vision_transformer.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace genie::models {

at::Tensor join_masks(const std::vector<at::Tensor>& masks, int64_t batch, const char* name) {
  TORCH_CHECK_VALUE(!masks.empty(), name, ": expected at least one mask of token ids");
  for (const at::Tensor& mask : masks) {
    TORCH_CHECK_TYPE(mask.scalar_type() == at::kLong, name, ": masks must hold int64 token ids, got ",
                     mask.scalar_type());
    TORCH_CHECK_VALUE(mask.dim() == 2 && mask.size(0) == batch && mask.sizes() == masks.front().sizes(), name,
                      ": masks must all be (B,K) with B = ", batch, " and one K, got ", mask.sizes(),
                      mask.is_same(masks.front()) ? "" : " beside ",
                      mask.is_same(masks.front()) ? std::vector<int64_t>() : masks.front().sizes().vec());
  }
  return masks.size() == 1 ? masks.front() : at::cat(masks);
}

VisionTransformerImpl::VisionTransformerImpl(const VisionTransformerOptions& options) : options_(options) {
  const auto& stack = options.blocks;
  TORCH_CHECK_VALUE(stack.depth >= 0, "VisionTransformer: depth must not be negative, got ", stack.depth);
  for (const int64_t layer : options.out_layers) {
    TORCH_CHECK_VALUE(layer >= 0 && layer < stack.depth, "VisionTransformer: out_layers must be in 0..",
                      stack.depth - 1, ", got ", layer);
  }
  TORCH_CHECK_VALUE(std::ranges::adjacent_find(options.out_layers, std::ranges::greater_equal()) ==
                        options.out_layers.end(),
                    "VisionTransformer: out_layers must rise, got ", options.out_layers);
  patch_embed_ = register_module("patch_embed",
                                 nn::TubeletEmbedding(nn::TubeletOptions{.patch_size = options.patch_size,
                                                                         .tubelet_size = options.tubelet_size,
                                                                         .channels = options.channels,
                                                                         .dim = stack.dim}));
  blocks_ = register_module("blocks", torch::nn::ModuleList());
  for (int64_t i = 0; i < stack.depth; ++i) blocks_->push_back(nn::make_rope_block(stack, i));
  norm_ = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({stack.dim}).eps(1e-6)));
  nn::initialize_vjepa(*this);
  for (int64_t i = 0; i < stack.depth; ++i) {
    nn::rescale_block(*blocks_[i]->as<nn::RoPEBlockImpl>(), i + 1);
  }
}

std::vector<at::Tensor> VisionTransformerImpl::features(const at::Tensor& video,
                                                        const std::vector<at::Tensor>& masks) {
  const nn::GridSize grid = patch_embed_->grid(video);
  const int64_t batch = video.size(0), per_clip = grid.count();
  const auto ids_options = video.options().dtype(at::kLong);
  const at::Tensor ids = masks.empty() ? at::arange(per_clip, ids_options).expand({batch, per_clip})
                                       : join_masks(masks, batch, "VisionTransformer");
  TORCH_CHECK_VALUE(ids.device() == video.device(), "VisionTransformer: video is on ", video.device(),
                    ", masks on ", ids.device());
  const nn::PackedTokens tokens = nn::pack_tokens(ids, grid, nn::areas_in_use(options_.blocks));
  // Only the tokens that are kept are embedded, already in packed order.
  const at::Tensor clip = at::arange(tokens.sequences, ids_options).remainder(batch).unsqueeze(1);
  at::Tensor x = patch_embed_->embed(video, tokens.pack((ids + clip * per_clip).flatten()));
  const auto result = [&] {
    const at::Tensor normalized = norm_->forward(x);
    return tokens.unpack(normalized).view({tokens.sequences, tokens.tokens, options_.blocks.dim});
  };
  std::vector<at::Tensor> outputs;
  const auto& taps = options_.out_layers;
  const int64_t last = taps.empty() ? options_.blocks.depth : taps.back() + 1;
  for (int64_t i = 0; i < last; ++i) {
    x = nn::run_block(*blocks_[i]->as<nn::RoPEBlockImpl>(), x, tokens, options_.blocks.checkpointing);
    if (std::ranges::find(taps, i) != taps.end()) outputs.push_back(result());
  }
  if (taps.empty()) outputs.push_back(result());
  return outputs;
}

at::Tensor VisionTransformerImpl::forward(const at::Tensor& video, const std::vector<at::Tensor>& masks) {
  TORCH_CHECK_VALUE(options_.out_layers.size() <= 1, "VisionTransformer: with ", options_.out_layers.size(),
                    " out_layers there is no one output; call features()");
  return features(video, masks).front();
}

}  // namespace genie::models
