#include "genie/models/dynamics_model.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "genie/models/transformer_factory.h"

namespace genie::models {
namespace {

void check_ids(const at::Tensor& ids, int64_t count, const char* what) {
  TORCH_CHECK_TYPE(ids.scalar_type() == at::kLong, "DynamicsModel: expected int64 ", what, ", got ",
                   ids.scalar_type());
  if (ids.numel() == 0) return;
  const int64_t low = ids.min().item<int64_t>(), high = ids.max().item<int64_t>();
  TORCH_CHECK_INDEX(low >= 0 && high < count, "DynamicsModel: ", what, " must be in 0..", count - 1, ", got ",
                    low, "..", high);
}

}  // namespace

TokenEmbeddingImpl::TokenEmbeddingImpl(int64_t num_tokens, int64_t dim) {
  token_ = register_module("token", torch::nn::Embedding(num_tokens, dim));
  at::NoGradGuard no_grad;
  token_->weight.normal_(0, 0.02);
  mask_ = register_parameter("mask", at::randn({dim}) * 0.02);
}

at::Tensor TokenEmbeddingImpl::forward(const at::Tensor& tokens, const at::Tensor& mask) {
  return at::where(mask.unsqueeze(-1), mask_, token_->forward(tokens));
}

ActionEmbeddingImpl::ActionEmbeddingImpl(int64_t num_actions, int64_t dim) {
  action_ = register_module("action", torch::nn::Embedding(num_actions + 1, dim));
  at::NoGradGuard no_grad;
  action_->weight.normal_(0, 0.02);
}

DynamicsModelImpl::DynamicsModelImpl(const config::DynamicsConfig& config, int64_t num_frames,
                                     const nn::PatchGrid& grid, int64_t num_tokens, int64_t num_actions)
    : config_(config),
      num_frames_(num_frames),
      tokens_per_frame_(grid.count()),
      num_tokens_(num_tokens),
      num_actions_(num_actions) {
  const int64_t dim = config.transformer.dim;
  TORCH_CHECK_VALUE(config.action_conditioning == "additive" || config.action_conditioning == "prepend",
                    "DynamicsModel: unknown action_conditioning '", config.action_conditioning,
                    "'; allowed: additive, prepend");
  const int64_t extra = config.action_conditioning == "prepend" ? 1 : 0;
  position_ = register_module("position",
                              nn::CombinedPositionalEmbedding(num_frames, grid.rows(), grid.columns(), dim));
  transformer_ = register_module("transformer",
                                 make_transformer(config.transformer, num_frames, tokens_per_frame_ + extra));
  head_ = register_module("head", torch::nn::Linear(dim, num_tokens));
  initialize_weights(*this, config.transformer.depth);
  token_ = register_module("token", TokenEmbedding(num_tokens, dim));
  action_ = register_module("action", ActionEmbedding(num_actions, dim));
}

void DynamicsModelImpl::check_inputs(const at::Tensor& tokens, const at::Tensor& mask) const {
  TORCH_CHECK_VALUE(tokens.dim() == 3 && tokens.size(2) == tokens_per_frame_ && tokens.size(1) <= num_frames_,
                    "DynamicsModel: expected tokens (B,T,", tokens_per_frame_, ") with T <= ", num_frames_,
                    ", got ", tokens.sizes());
  TORCH_CHECK_VALUE(mask.scalar_type() == at::kBool && mask.sizes() == tokens.sizes(),
                    "DynamicsModel: expected a bool mask ", tokens.sizes(), ", got ", mask.scalar_type(), " ",
                    mask.sizes());
  check_ids(tokens, num_tokens_, "tokens");
}

at::Tensor DynamicsModelImpl::embed(const at::Tensor& tokens, const at::Tensor& leading,
                                    const at::Tensor& mask, int64_t offset) {
  const at::Tensor x = position_->forward(token_->forward(tokens, mask), offset);
  const at::Tensor action = action_->forward(leading).unsqueeze(2);
  return config_.action_conditioning == "additive" ? x + action : at::cat({action, x}, 2);
}

at::Tensor DynamicsModelImpl::only_frame_tokens(const at::Tensor& x) const {
  return config_.action_conditioning == "additive" ? x : x.narrow(2, 1, tokens_per_frame_);
}

at::Tensor DynamicsModelImpl::features(const at::Tensor& tokens, const at::Tensor& actions,
                                       const at::Tensor& mask) {
  check_inputs(tokens, mask);
  TORCH_CHECK_VALUE(
      actions.dim() == 2 && actions.size(0) == tokens.size(0) && actions.size(1) == tokens.size(1) - 1,
      "DynamicsModel: expected actions (", tokens.size(0), ",", tokens.size(1) - 1,
      "), one between two frames, got ", actions.sizes());
  check_ids(actions, num_actions_, "actions");
  const at::Tensor none = at::full({actions.size(0), 1}, num_actions_, actions.options());
  return only_frame_tokens(transformer_->forward(embed(tokens, at::cat({none, actions}, 1), mask, 0)));
}

at::Tensor DynamicsModelImpl::features_cached(const at::Tensor& tokens, const at::Tensor& leading,
                                              const at::Tensor& mask, nn::TemporalCache& cache) {
  check_inputs(tokens, mask);
  TORCH_CHECK_VALUE(leading.sizes() == tokens.sizes().slice(0, 2),
                    "DynamicsModel: expected the actions that led to each frame, ",
                    tokens.sizes().slice(0, 2), ", got ", leading.sizes());
  check_ids(leading, num_actions_ + 1, "actions");
  return only_frame_tokens(transformer_->forward_cached(embed(tokens, leading, mask, cache.length()), cache));
}

nn::TemporalCache DynamicsModelImpl::make_cache() const {
  return nn::TemporalCache(config_.transformer.depth, num_frames_);
}

at::Tensor DynamicsModelImpl::forward(const at::Tensor& tokens, const at::Tensor& actions,
                                      const at::Tensor& mask) {
  return logits(features(tokens, actions, mask));
}

void DynamicsModelImpl::initialize_from(const at::Tensor& codebook, uint64_t seed) {
  if (config_.token_embedding == "random") return;
  at::NoGradGuard no_grad;
  TORCH_CHECK_VALUE(codebook.dim() == 2 && codebook.size(0) == num_tokens_,
                    "DynamicsModel: expected a codebook of ", num_tokens_, " entries, got ",
                    codebook.sizes());
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const int64_t dim = head_->weight.size(1), width = codebook.size(1);
  const at::Tensor centered = codebook - codebook.mean(0);
  constexpr double kTokenStd = 0.05;
  // A random near-isometry keeps the codes' geometry; their scale is near that of the other embeddings.
  const at::Tensor projection =
      at::randn({width, dim}, generator, codebook.options().device(at::kCPU)).to(codebook.device());
  at::Tensor embedded = centered.mm(projection);
  embedded = embedded / embedded.std().clamp_min(1e-6);
  token_->weight().copy_(embedded * kTokenStd);
  head_->weight.copy_(embedded / std::sqrt(static_cast<double>(dim)));
}

}  // namespace genie::models
