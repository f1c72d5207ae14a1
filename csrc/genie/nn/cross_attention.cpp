#include "genie/nn/cross_attention.h"

#include <ATen/ATen.h>
#include <torch/nn/init.h>

#include "genie/nn/input_check.h"
#include "genie/nn/rms_norm.h"

namespace genie::nn {
namespace {

constexpr double kNormEps = 1e-5;

Linear linear(int64_t in, int64_t out) { return Linear(torch::nn::LinearOptions(in, out).bias(false)); }

}  // namespace

CrossAttentionImpl::CrossAttentionImpl(const CrossAttentionOptions& options) : options_(options) {
  const auto& o = options_;
  TORCH_CHECK_VALUE(
      o.dim >= 1 && o.n_heads >= 1 && o.n_kv_heads >= 1 && o.head_dim.value_or(1) >= 1,
      "CrossAttention: dim, n_heads, n_kv_heads and head_dim must be at least 1, got dim=", o.dim,
      ", n_heads=", o.n_heads, ", n_kv_heads=", o.n_kv_heads, ", head_dim=", o.head_dim.value_or(1));
  TORCH_CHECK_VALUE(o.n_heads % o.n_kv_heads == 0, "CrossAttention: n_heads=", o.n_heads,
                    " is not divisible by n_kv_heads=", o.n_kv_heads);
  head_dim_ = o.head_dim.value_or(o.dim / o.n_heads);
  TORCH_CHECK_VALUE(head_dim_ >= 1, "CrossAttention: dim=", o.dim, " is less than n_heads=", o.n_heads,
                    "; give head_dim");
  q_proj_ = register_module("q_proj", linear(o.dim, o.n_heads * head_dim_));
  k_proj_ = register_module("k_proj", linear(o.dim, o.n_kv_heads * head_dim_));
  v_proj_ = register_module("v_proj", linear(o.dim, o.n_kv_heads * head_dim_));
  o_proj_ = register_module("o_proj", linear(o.n_heads * head_dim_, o.dim));
  torch::nn::init::zeros_(
      o_proj_->weight);  // after its own draw, so that the random numbers are the original's
}

at::Tensor CrossAttentionImpl::forward(const at::Tensor& x, const at::Tensor& image_features,
                                       const std::optional<at::Tensor>& image_mask) {
  TORCH_CHECK_VALUE(x.dim() == 3 && x.size(2) == options_.dim, "CrossAttention: expected x (B,S,",
                    options_.dim, "), got ", x.sizes());
  TORCH_CHECK_VALUE(image_features.dim() == 3 && image_features.size(2) == options_.dim,
                    "CrossAttention: expected image_features (B,N,", options_.dim, "), got ",
                    image_features.sizes());
  check_dtype_and_device("CrossAttention", "x", x, q_proj_->weight);
  check_dtype_and_device("CrossAttention", "image_features", image_features, q_proj_->weight);
  TORCH_CHECK_VALUE(image_features.size(0) == x.size(0), "CrossAttention: x holds ", x.size(0),
                    " samples, image_features ", image_features.size(0));
  TORCH_CHECK_VALUE(image_features.size(1) >= 1, "CrossAttention: image_features hold no tokens");
  const int64_t batch = x.size(0), length = x.size(1), images = image_features.size(1);
  at::Tensor mask, seeing;
  if (image_mask) {
    TORCH_CHECK_TYPE(image_mask->scalar_type() == at::kBool,
                     "CrossAttention: image_mask must be bool (true = attend), got ",
                     image_mask->scalar_type());
    TORCH_CHECK_VALUE(image_mask->dim() == 2 && image_mask->size(0) == batch && image_mask->size(1) == images,
                      "CrossAttention: image_mask must be (B,N) = (", batch, ",", images, "), got ",
                      image_mask->sizes());
    TORCH_CHECK_VALUE(image_mask->device() == x.device(), "CrossAttention: x is on ", x.device(),
                      ", image_mask on ", image_mask->device());
    mask = image_mask->view({batch, 1, 1, images});
    seeing = mask.any(-1, true);
    mask = mask | ~seeing;  // a softmax over nothing is NaN; such samples are set to 0 below
  }
  const auto split = [this](const at::Tensor& t, int64_t heads) {
    return t.view({t.size(0), t.size(1), heads, head_dim_}).transpose(1, 2);
  };
  const at::Tensor q = split(q_proj_->forward(x), options_.n_heads);
  const at::Tensor k = split(k_proj_->forward(image_features), options_.n_kv_heads);
  const at::Tensor v = split(v_proj_->forward(image_features), options_.n_kv_heads);
  at::Tensor out =
      at::scaled_dot_product_attention(q, k, v, mask.defined() ? std::optional(mask) : std::nullopt, 0.0,
                                       false, std::nullopt, options_.n_heads != options_.n_kv_heads);
  if (seeing.defined()) out = at::where(seeing, out, at::zeros({}, out.options()));
  return o_proj_->forward(out.transpose(1, 2).reshape({batch, length, options_.n_heads * head_dim_}));
}

CrossAttentionMLPImpl::CrossAttentionMLPImpl(int64_t dim, int64_t hidden_dim, const std::string& activation)
    : activation_(activation) {
  TORCH_CHECK_VALUE(activation == "silu" || activation == "gelu" || activation == "relu",
                    "CrossAttentionBlock: activation must be 'silu', 'gelu' or 'relu', got '", activation,
                    "'");
  TORCH_CHECK_VALUE(hidden_dim >= 1, "CrossAttentionBlock: ffn_hidden_dim must be at least 1, got ",
                    hidden_dim);
  if (activation == "silu") gate_proj_ = register_module("gate_proj", linear(dim, hidden_dim));
  up_proj_ = register_module("up_proj", linear(dim, hidden_dim));
  down_proj_ = register_module("down_proj", linear(hidden_dim, dim));
  torch::nn::init::zeros_(down_proj_->weight);
}

at::Tensor CrossAttentionMLPImpl::forward(const at::Tensor& x) {
  const at::Tensor up = up_proj_->forward(x);
  if (activation_ == "silu") return down_proj_->forward(at::silu(gate_proj_->forward(x)) * up);
  return down_proj_->forward(activation_ == "gelu" ? at::gelu(up) : at::relu(up));
}

CrossAttentionBlockImpl::CrossAttentionBlockImpl(const CrossAttentionBlockOptions& options) {
  // Made first, because it checks dim; the norms draw no random numbers.
  CrossAttention attention(
      CrossAttentionOptions{options.dim, options.n_heads, options.n_kv_heads, std::nullopt});
  attn_norm_ = make_norm(options.norm_type, options.dim, kNormEps);
  mlp_norm_ = make_norm(options.norm_type, options.dim, kNormEps);
  register_module("attn_norm", attn_norm_.ptr());
  attn_ = register_module("attn", std::move(attention));
  register_module("mlp_norm", mlp_norm_.ptr());
  mlp_ = register_module("mlp", CrossAttentionMLP(options.dim, options.ffn_hidden_dim, options.activation));
}

at::Tensor CrossAttentionBlockImpl::forward(const at::Tensor& x, const at::Tensor& image_features,
                                            const std::optional<at::Tensor>& image_mask) {
  check_input("CrossAttentionBlock", "x", x, attn_->dim(), attn_->weight());
  const at::Tensor attended = x + attn_->forward(attn_norm_.forward(x), image_features, image_mask);
  return attended + mlp_->forward(mlp_norm_.forward(attended));
}

}  // namespace genie::nn
