#include "genie/nn/st_transformer.h"

#include <ATen/ATen.h>

#include "genie/nn/area_block.h"
#include "genie/nn/checkpoint.h"
#include "genie/nn/input_check.h"
#include "genie/nn/rms_norm.h"

namespace genie::nn {

STTransformerBlockImpl::STTransformerBlockImpl(const STBlockOptions& options) {
  const int64_t dim = options.attention.dim;
  const auto add_norm = [&](const char* name) {
    auto norm = make_norm(options.norm_layer, dim, 1e-5);
    register_module(name, norm.ptr());
    return norm;
  };
  norm1_spatial_ = add_norm("norm1_spatial");
  if (options.vit5) {
    attn_vit5_ = register_module("attn_spatial", ViT5Attention(*options.vit5));
  } else {
    attn_spatial_ = register_module("attn_spatial", STSpatialAttention(options.attention));
  }
  norm1_temporal_ = add_norm("norm1_temporal");
  attn_temporal_ = register_module("attn_temporal", STTemporalAttention(options.attention));
  norm2_ = add_norm("norm2");
  mlp_ = register_module("mlp", STMLP(dim, mlp_width("STTransformerBlock", dim, options.mlp_ratio), dim,
                                      options.act_layer, options.drop));
  drop_path_ = register_module("drop_path", DropPath(options.drop_path));
}

at::Tensor STTransformerBlockImpl::attend_in_frames(const at::Tensor& x) {
  if (attn_vit5_.is_empty()) return attn_spatial_->add_to(x, norm1_spatial_, *drop_path_);
  const at::Tensor attended = attn_vit5_->forward(norm1_spatial_.forward(x).flatten(0, 1));
  return x + drop_path_->forward(attended.view(x.sizes()));
}

at::Tensor STTransformerBlockImpl::forward(const at::Tensor& input, bool causal,
                                           std::optional<int64_t> num_frames) {
  check_input("STTransformerBlock", "x", input, mlp_->weight().size(1), mlp_->weight());
  TORCH_CHECK_VALUE(input.dim() == 3 || input.dim() == 4,
                    "STTransformerBlock: expected (B,T,N,C) or (B,T*N,C), got ", input.sizes());
  TORCH_CHECK_VALUE(input.dim() == 3 || num_frames.value_or(input.size(1)) == input.size(1),
                    "STTransformerBlock: num_frames=", num_frames.value_or(0), ", but x has ", input.size(1),
                    " frames: ", input.sizes());
  at::Tensor x = input;
  if (x.dim() == 3) {
    TORCH_CHECK_VALUE(num_frames && *num_frames >= 1 && x.size(1) % *num_frames == 0,
                      "STTransformerBlock: a (B,T*N,C) input needs num_frames that divides its ", x.size(1),
                      " tokens; or pass (B,T,N,C)");
    x = x.view({x.size(0), *num_frames, x.size(1) / *num_frames, x.size(2)});
  }
  x = attend_in_frames(x);
  x = attn_temporal_->add_to(x, norm1_temporal_, *drop_path_, causal);
  return mlp_->add_to(x, norm2_, *drop_path_).view(input.sizes());
}

at::Tensor STTransformerBlockImpl::forward_cached(const at::Tensor& input, TemporalCache& cache,
                                                  int64_t layer) {
  const at::Tensor x = attn_temporal_->add_cached_to(attend_in_frames(input), norm1_temporal_, cache, layer);
  return mlp_->add_to(x, norm2_, *drop_path_);
}

STTransformerImpl::STTransformerImpl(const STTransformerOptions& options) : options_(options) {
  TORCH_CHECK_VALUE(
      options.depth >= 0 && options.num_patches_per_frame >= 1 && options.num_frames >= 1 && options.dim >= 1,
      "STTransformer: depth must be >= 0; num_frames, num_patches_per_frame and dim at least 1; got depth=",
      options.depth, ", num_frames=", options.num_frames,
      ", num_patches_per_frame=", options.num_patches_per_frame, ", dim=", options.dim);
  check_rates("STTransformer", {{"drop_rate", options.drop_rate},
                                {"attn_drop_rate", options.attn_drop_rate},
                                {"drop_path_rate", options.drop_path_rate}});
  if (options.frame.vit5) {
    cls_token_ = register_parameter("cls_token", at::randn({options.dim}) * 0.02);
    registers_ =
        register_parameter("registers", at::randn({options.frame.num_registers, options.dim}) * 0.02);
  }
  blocks_ = register_module("blocks", torch::nn::ModuleList());
  for (int64_t layer = 0; layer < options.depth; ++layer) blocks_->push_back(make_block(layer));
  norm_ = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({options.dim}).eps(1e-5)));
}

std::shared_ptr<VideoBlock> STTransformerImpl::make_block(int64_t layer) const {
  const STTransformerOptions& o = options_;
  const double drop_path =
      o.depth > 1 ? o.drop_path_rate * static_cast<double>(layer) / static_cast<double>(o.depth - 1) : 0.0;
  const auto& area = o.frame.area;
  if (area && area->first_layer <= layer && layer < area->end_layer) {
    AreaBlockOptions block;
    block.attention.area = {.attention = {.dim = o.dim,
                                          .num_heads = o.num_heads,
                                          .qkv_bias = o.qkv_bias,
                                          .qk_scale = o.qk_scale,
                                          .attn_drop = o.attn_drop_rate,
                                          .proj_drop = o.drop_rate,
                                          .head_dim = o.head_dim},
                            .spatial_splits = area->splits.spatial,
                            .temporal_splits = area->splits.temporal,
                            .residual_scale = area->residual_scale};
    block.attention.rows = o.frame.rows;
    block.attention.columns = o.frame.columns;
    block.attention.num_frames = o.num_frames;
    block.attention.endless = o.rotary_time;
    block.mlp_ratio = o.mlp_ratio;
    block.drop = o.drop_rate;
    block.drop_path = drop_path;
    return AreaBlock(block).ptr();
  }
  STBlockOptions block;
  block.attention = {.dim = o.dim,
                     .num_heads = o.num_heads,
                     .qkv_bias = o.qkv_bias,
                     .qk_scale = o.qk_scale,
                     .attn_drop = o.attn_drop_rate,
                     .proj_drop = o.drop_rate,
                     .head_dim = o.head_dim,
                     .rotary_window = o.rotary_time ? o.num_frames : 0};
  block.mlp_ratio = o.mlp_ratio;
  block.drop = o.drop_rate;
  block.drop_path = drop_path;
  if (o.frame.vit5) {
    block.vit5 =
        ViT5AttentionOptions{.hidden_dim = o.dim,
                             .num_heads = o.num_heads,
                             .num_patches_h = o.frame.rows,
                             .num_patches_w = o.frame.columns,
                             .num_registers = o.frame.num_registers,
                             .qk_norm = "rmsnorm",
                             .attn_dropout = o.attn_drop_rate,
                             .proj_dropout = o.drop_rate,
                             .qkv_bias = o.qkv_bias,
                             .out_proj_bias = true,
                             .scale = o.qk_scale,
                             .head_dim = o.head_dim,
                             .num_plain_tokens = o.num_patches_per_frame - o.frame.rows * o.frame.columns};
  }
  return STTransformerBlock(block).ptr();
}

at::Tensor STTransformerImpl::with_registers(const at::Tensor& x) const {
  if (!cls_token_.defined()) return x;
  const at::Tensor added = at::cat({cls_token_.unsqueeze(0), registers_}).to(x.scalar_type());
  return at::cat({x, added.expand({x.size(0), x.size(1), added.size(0), added.size(1)})}, 2);
}

void STTransformerImpl::rebind(const std::string& name, const at::Tensor& tensor) {
  (name == "cls_token" ? cls_token_ : registers_) = tensor;
}

at::Tensor STTransformerImpl::forward(const at::Tensor& input, bool causal, const AfterBlock& after_block) {
  TORCH_CHECK_VALUE(input.dim() == 3 || input.dim() == 4,
                    "STTransformer: expected (B,T,N,C) or (B,T*N,C), got ", input.sizes());
  check_input("STTransformer", "x", input, options_.dim, norm_->weight);
  at::Tensor x = input;
  if (x.dim() == 3) {
    TORCH_CHECK_VALUE(x.size(1) % options_.num_patches_per_frame == 0, "STTransformer: ", x.size(1),
                      " tokens are no multiple of num_patches_per_frame=", options_.num_patches_per_frame);
    const int64_t tokens = options_.num_patches_per_frame;
    x = x.view({x.size(0), x.size(1) / tokens, tokens, x.size(2)});
  }
  const int64_t tokens = x.size(2);
  x = with_registers(x);
  int64_t layer = 0;
  for (const auto& module : *blocks_) {
    // Backward may come when nobody else holds the module any more.
    const auto block = std::dynamic_pointer_cast<VideoBlock>(module);
    if (options_.gradient_checkpointing && is_training()) {
      x = checkpoint([block, causal](const at::Tensor& h) { return block->forward_frames(h, causal); }, x,
                     [block] { return block->parameters(); });
    } else {
      x = block->forward_frames(x, causal);
    }
    if (after_block) x = after_block(layer, x);
    ++layer;
  }
  return norm_->forward(x.narrow(2, 0, tokens)).view(input.sizes());
}

at::Tensor STTransformerImpl::forward_cached(const at::Tensor& input, TemporalCache& cache,
                                             const AfterBlock& after_block) {
  TORCH_CHECK(!is_training(), "STTransformer: the temporal cache is for inference; call eval() first");
  at::Tensor x = with_registers(input);
  int64_t layer = 0;
  for (const auto& module : *blocks_) {
    x = std::dynamic_pointer_cast<VideoBlock>(module)->forward_cached(x, cache, layer);
    if (after_block) x = after_block(layer, x);
    ++layer;
  }
  return norm_->forward(x.narrow(2, 0, input.size(2)));
}

}  // namespace genie::nn
