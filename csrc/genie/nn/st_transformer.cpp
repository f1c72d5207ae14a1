#include "genie/nn/st_transformer.h"

#include <ATen/ATen.h>

#include "genie/nn/checkpoint.h"
#include "genie/nn/rms_norm.h"

namespace genie::nn {

STMLPImpl::STMLPImpl(int64_t in_features, int64_t hidden_features, int64_t out_features,
                     std::string act_layer, double drop)
    : act_layer_(std::move(act_layer)), drop_(drop) {
  TORCH_CHECK_VALUE(act_layer_ == "gelu" || act_layer_ == "silu" || act_layer_ == "relu",
                    "STMLP: act_layer must be gelu, silu or relu, got '", act_layer_, "'");
  TORCH_CHECK_VALUE(drop >= 0 && drop < 1, "STMLP: drop must be in [0, 1), got ", drop);
  fc1_ = register_module("fc1", torch::nn::Linear(in_features, hidden_features));
  fc2_ = register_module("fc2", torch::nn::Linear(hidden_features, out_features));
}

at::Tensor STMLPImpl::forward(const at::Tensor& x) {
  at::Tensor hidden = fc1_->forward(x);
  hidden = act_layer_ == "gelu"   ? at::gelu(hidden)
           : act_layer_ == "silu" ? at::silu(hidden)
                                  : at::relu(hidden);
  hidden = fc2_->forward(at::dropout(hidden, drop_, is_training()));
  return at::dropout(hidden, drop_, is_training());
}

DropPathImpl::DropPathImpl(double drop_prob) : drop_prob_(drop_prob) {
  TORCH_CHECK_VALUE(drop_prob >= 0 && drop_prob < 1, "DropPath: drop_prob must be in [0, 1), got ",
                    drop_prob);
}

at::Tensor DropPathImpl::forward(const at::Tensor& x) {
  if (drop_prob_ == 0 || !is_training()) return x;
  std::vector<int64_t> shape(x.dim(), 1);
  shape[0] = x.size(0);
  const double keep = 1 - drop_prob_;
  return x * at::empty(shape, x.options()).bernoulli_(keep).div_(keep);
}

STTransformerBlockImpl::STTransformerBlockImpl(const STBlockOptions& options) {
  const int64_t dim = options.attention.dim;
  const auto add_norm = [&](const char* name) {
    auto norm = make_norm(options.norm_layer, dim, 1e-5);
    register_module(name, norm.ptr());
    return norm;
  };
  norm1_spatial_ = add_norm("norm1_spatial");
  attn_spatial_ = register_module("attn_spatial", STSpatialAttention(options.attention));
  norm1_temporal_ = add_norm("norm1_temporal");
  attn_temporal_ = register_module("attn_temporal", STTemporalAttention(options.attention));
  norm2_ = add_norm("norm2");
  mlp_ = register_module(
      "mlp", STMLP(dim, static_cast<int64_t>(dim * options.mlp_ratio), dim, options.act_layer, options.drop));
  drop_path_ = register_module("drop_path", DropPath(options.drop_path));
}

at::Tensor STTransformerBlockImpl::forward(const at::Tensor& input, bool causal,
                                           std::optional<int64_t> num_frames) {
  at::Tensor x = input;
  if (x.dim() == 3) {
    TORCH_CHECK_VALUE(num_frames && *num_frames >= 1 && x.size(1) % *num_frames == 0,
                      "STTransformerBlock: a (B,T*N,C) input needs num_frames that divides its ", x.size(1),
                      " tokens; or pass (B,T,N,C)");
    x = x.view({x.size(0), *num_frames, -1, x.size(2)});
  }
  x = x + drop_path_->forward(attn_spatial_->forward(norm1_spatial_.forward(x)));
  x = x + drop_path_->forward(attn_temporal_->forward(norm1_temporal_.forward(x), causal));
  x = x + drop_path_->forward(mlp_->forward(norm2_.forward(x)));
  return x.view(input.sizes());
}

at::Tensor STTransformerBlockImpl::forward_cached(const at::Tensor& input, TemporalCache& cache,
                                                  int64_t layer) {
  at::Tensor x = input + attn_spatial_->forward(norm1_spatial_.forward(input));
  x = x + attn_temporal_->forward_cached(norm1_temporal_.forward(x), cache, layer);
  return x + mlp_->forward(norm2_.forward(x));
}

STTransformerImpl::STTransformerImpl(const STTransformerOptions& options) : options_(options) {
  TORCH_CHECK_VALUE(options.depth >= 0 && options.num_patches_per_frame >= 1,
                    "STTransformer: depth must be >= 0 and num_patches_per_frame >= 1, got ", options.depth,
                    " and ", options.num_patches_per_frame);
  blocks_ = register_module("blocks", torch::nn::ModuleList());
  for (int64_t layer = 0; layer < options.depth; ++layer) {
    STBlockOptions block;
    block.attention = {.dim = options.dim,
                       .num_heads = options.num_heads,
                       .qkv_bias = options.qkv_bias,
                       .qk_scale = options.qk_scale,
                       .attn_drop = options.attn_drop_rate,
                       .proj_drop = options.drop_rate,
                       .head_dim = options.head_dim};
    block.mlp_ratio = options.mlp_ratio;
    block.drop = options.drop_rate;
    block.drop_path = options.depth > 1 ? options.drop_path_rate * layer / (options.depth - 1) : 0.0;
    blocks_->push_back(STTransformerBlock(block));
  }
  norm_ = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({options.dim}).eps(1e-5)));
}

at::Tensor STTransformerImpl::forward(const at::Tensor& input, bool causal) {
  TORCH_CHECK_VALUE(input.dim() == 3 || input.dim() == 4,
                    "STTransformer: expected (B,T,N,C) or (B,T*N,C), got ", input.sizes());
  at::Tensor x = input;
  if (x.dim() == 3) {
    TORCH_CHECK_VALUE(x.size(1) % options_.num_patches_per_frame == 0, "STTransformer: ", x.size(1),
                      " tokens are no multiple of num_patches_per_frame=", options_.num_patches_per_frame);
    x = x.view({x.size(0), -1, options_.num_patches_per_frame, x.size(2)});
  }
  for (const auto& module : *blocks_) {
    // Backward may come when nobody else holds the module any more.
    const auto block = std::dynamic_pointer_cast<STTransformerBlockImpl>(module);
    if (options_.gradient_checkpointing && is_training()) {
      x = checkpoint([block, causal](const at::Tensor& h) { return block->forward(h, causal); }, x,
                     block->parameters());
    } else {
      x = block->forward(x, causal);
    }
  }
  return norm_->forward(x).view(input.sizes());
}

at::Tensor STTransformerImpl::forward_cached(const at::Tensor& input, TemporalCache& cache) {
  TORCH_CHECK(!is_training(), "STTransformer: the temporal cache is for inference; call eval() first");
  at::Tensor x = input;
  int64_t layer = 0;
  for (const auto& module : *blocks_)
    x = module->as<STTransformerBlockImpl>()->forward_cached(x, cache, layer++);
  return norm_->forward(x);
}

}  // namespace genie::nn
