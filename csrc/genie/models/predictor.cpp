#include "genie/models/predictor.h"

#include <ATen/ATen.h>

#include "genie/models/vision_transformer.h"

namespace genie::models {

MaskTokensImpl::MaskTokensImpl(int64_t count, int64_t dim) {
  TORCH_CHECK_VALUE(count >= 1, "VisionPredictor: num_mask_tokens must be at least 1, got ", count);
  for (int64_t i = 0; i < count; ++i) {
    tokens_.push_back(register_parameter(std::to_string(i), at::zeros({1, 1, dim})));
  }
}

VisionPredictorImpl::VisionPredictorImpl(const VisionPredictorOptions& options) : options_(options) {
  const auto& stack = options.blocks;
  TORCH_CHECK_VALUE(
      options.embed_dim >= 1 && stack.depth >= 0 && options.grid.frames >= 1 && options.grid.height >= 1 &&
          options.grid.width >= 1,
      "VisionPredictor: embed_dim and the grid must be at least 1 and depth not negative, got embed_dim=",
      options.embed_dim, ", depth=", stack.depth, ", grid ", options.grid.frames, " x ", options.grid.height,
      " x ", options.grid.width);
  predictor_embed_ = register_module("predictor_embed", nn::Linear(options.embed_dim, stack.dim));
  mask_tokens_ = register_module("mask_tokens", MaskTokens(options.num_mask_tokens, stack.dim));
  predictor_blocks_ = register_module("predictor_blocks", torch::nn::ModuleList());
  for (int64_t i = 0; i < stack.depth; ++i) predictor_blocks_->push_back(nn::make_rope_block(stack, i));
  predictor_norm_ = register_module("predictor_norm",
                                    torch::nn::LayerNorm(torch::nn::LayerNormOptions({stack.dim}).eps(1e-6)));
  predictor_proj_ = register_module("predictor_proj", nn::Linear(stack.dim, options.embed_dim));
  nn::initialize_vjepa(*this);
  for (int64_t i = 0; i < stack.depth; ++i) {
    nn::rescale_block(*predictor_blocks_[i]->as<nn::RoPEBlockImpl>(), i + 1);
  }
}

at::Tensor VisionPredictorImpl::forward(const at::Tensor& x, const std::vector<at::Tensor>& masks_x,
                                        const std::vector<at::Tensor>& masks_y, int64_t mask_index) {
  TORCH_CHECK_VALUE(x.dim() == 3 && x.size(2) == options_.embed_dim, "VisionPredictor: expected x (R,K,",
                    options_.embed_dim, "), got ", x.sizes());
  TORCH_CHECK_VALUE(!masks_x.empty() && masks_x.size() == masks_y.size(),
                    "VisionPredictor: expected as many masks_y as masks_x, at least one, got ",
                    masks_y.size(), " and ", masks_x.size());
  const auto batch = x.size(0) / static_cast<int64_t>(masks_x.size());
  const at::Tensor seen = join_masks(masks_x, batch, "VisionPredictor, masks_x");
  const at::Tensor hidden = join_masks(masks_y, batch, "VisionPredictor, masks_y");
  TORCH_CHECK_VALUE(seen.size(0) == x.size(0) && seen.size(1) == x.size(1), "VisionPredictor: masks_x hold ",
                    seen.size(0), " x ", seen.size(1), " token ids, but x is ", x.sizes());
  const int64_t rows = x.size(0), known = seen.size(1), asked = hidden.size(1), dim = options_.blocks.dim;
  const nn::PackedTokens tokens =
      nn::pack_tokens(at::cat({seen, hidden}, 1), options_.grid, nn::areas_in_use(options_.blocks));
  const at::Tensor context = predictor_embed_->forward(x);
  const int64_t count = mask_tokens_->count();
  const at::Tensor& token = mask_tokens_->get(((mask_index % count) + count) % count);
  const at::Tensor placeholders = token.to(context.scalar_type()).expand({rows, asked, dim});
  at::Tensor packed = tokens.pack(at::cat({context, placeholders}, 1).flatten(0, 1));
  for (int64_t i = 0; i < options_.blocks.depth; ++i) {
    packed = nn::run_block(*predictor_blocks_[i]->as<nn::RoPEBlockImpl>(), packed, tokens,
                           options_.blocks.checkpointing);
  }
  const at::Tensor answers = tokens.unpack(packed).view({rows, known + asked, dim}).narrow(1, known, asked);
  return predictor_proj_->forward(predictor_norm_->forward(answers));
}

}  // namespace genie::models
