#include "genie/models/dynamics_model.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "genie/models/transformer_factory.h"
#include "genie/nn/cross_attention.h"
#include "genie/nn/input_check.h"
#include "genie/ops/linear_cross_entropy/linear_cross_entropy.h"

namespace genie::models {
namespace {

// Slots of the cache's memory.
constexpr size_t kActionMemory = 0, kTokenMemory = 1;

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
  const std::string& conditioning = config.action_conditioning;
  TORCH_CHECK_VALUE(
      conditioning == "additive" || conditioning == "prepend" || conditioning == "cross_attention",
      "DynamicsModel: unknown action_conditioning '", conditioning,
      "'; allowed: additive, prepend, cross_attention");
  const int64_t further = conditioning == "prepend" ? 1 : 0;
  position_ = register_module("position", make_position(config.transformer, num_frames, grid));
  transformer_ =
      register_module("transformer", make_transformer(config.transformer, num_frames, grid, further));
  head_ = register_module("head", nn::Linear(dim, num_tokens));
  initialize_weights(*this, config.transformer.depth);
  if (conditioning == "cross_attention") {
    // After initialize_weights: these blocks start as the identity.
    cross_ = register_module("cross", torch::nn::ModuleList());
    action_position_ = register_module("action_position", nn::TemporalPositionalEmbedding(num_frames, dim));
    for (int64_t layer = config.cross_attention_every - 1; layer < config.transformer.depth;
         layer += config.cross_attention_every) {
      nn::CrossAttentionBlockOptions block;
      block.dim = dim;
      block.n_heads = config.transformer.heads;
      block.n_kv_heads = config.transformer.heads;
      block.ffn_hidden_dim = nn::mlp_width("DynamicsModel", dim, config.transformer.mlp_ratio);
      cross_->push_back(nn::CrossAttentionBlock(block));
    }
    TORCH_CHECK_VALUE(!cross_->is_empty(),
                      "DynamicsModel: cross_attention_every=", config.cross_attention_every,
                      " puts no block among ", config.transformer.depth, " layers; make it at most that");
  }
  if (config.previous_frame_input) {
    previous_ = register_module("previous", nn::Linear(torch::nn::LinearOptions(dim, dim).bias(false)));
    at::NoGradGuard no_grad;
    previous_->weight.copy_(at::eye(dim));
  }
  token_ = register_module("token", TokenEmbedding(num_tokens, dim));
  action_ = register_module("action", ActionEmbedding(num_actions, dim));
}

void DynamicsModelImpl::check_inputs(const at::Tensor& tokens, const at::Tensor& mask) const {
  check_layout(tokens, mask);
  check_tokens(tokens);
}

void DynamicsModelImpl::check_layout(const at::Tensor& tokens, const at::Tensor& mask) const {
  TORCH_CHECK_VALUE(tokens.dim() == 3 && tokens.size(2) == tokens_per_frame_ &&
                        (tokens.size(1) <= num_frames_ || config_.transformer.rotary_time()),
                    "DynamicsModel: expected tokens (B,T,", tokens_per_frame_, ") with T <= ", num_frames_,
                    ", got ", tokens.sizes());
  TORCH_CHECK_VALUE(tokens.size(1) >= 1, "DynamicsModel: expected at least one frame, got ", tokens.sizes());
  TORCH_CHECK_TYPE(mask.scalar_type() == at::kBool, "DynamicsModel: expected a bool mask, got ",
                   mask.scalar_type());
  TORCH_CHECK_VALUE(mask.sizes() == tokens.sizes(), "DynamicsModel: expected a mask ", tokens.sizes(),
                    ", got ", mask.sizes());
  check_device(mask, "masks");
  check_device(tokens, "tokens");
}

void DynamicsModelImpl::check_tokens(const at::Tensor& tokens) const {
  check_device(tokens, "tokens");
  check_ids(tokens, num_tokens_, "tokens");
}

void DynamicsModelImpl::check_device(const at::Tensor& input, const char* what) const {
  TORCH_CHECK_VALUE(input.device() == head_->weight.device(), "DynamicsModel: ", what, " are on ",
                    input.device(), ", the model on ", head_->weight.device());
}

void DynamicsModelImpl::check_actions(const at::Tensor& actions) const {
  check_device(actions, "actions");
  check_ids(actions, num_actions_, "actions");
}

at::Tensor DynamicsModelImpl::embed(const at::Tensor& tokens, const at::Tensor& leading,
                                    const at::Tensor& mask, nn::TemporalCache* cache) {
  const int64_t offset = cache ? cache->length() : 0, frames = tokens.size(1);
  at::Tensor x = token_->forward(tokens, mask);
  if (previous_) {
    // Shown one frame later; the frame before the first is empty.
    const at::Tensor shown = cache ? cache->write_memory(kTokenMemory, x) : x;
    const int64_t past = shown.size(1) - frames;
    const at::Tensor before =
        past > 0 ? shown.narrow(1, past - 1, frames)
                 : at::cat({at::zeros_like(x.narrow(1, 0, 1)), shown.narrow(1, 0, frames - 1)}, 1);
    x = x + previous_->forward(before);
  }
  x = position_->forward(x, offset);
  if (cross_) return x;
  const at::Tensor action = action_->forward(leading).unsqueeze(2);
  return config_.action_conditioning == "additive" ? x + action : at::cat({x, action}, 2);
}

at::Tensor DynamicsModelImpl::action_memory(const at::Tensor& leading, int64_t offset) {
  const at::Tensor actions = action_->forward(leading);
  if (config_.transformer.rotary_time())
    return actions;  // how long ago they were is added where they are seen
  return actions + action_position_->table(leading.size(1), offset);
}

nn::AfterBlock DynamicsModelImpl::cross_attention(const at::Tensor& memory, int64_t frames) {
  // Frames are folded into the batch: each looks at the actions up to its own.
  const int64_t batch = memory.size(0), known = memory.size(1), dim = memory.size(2);
  const auto ids = memory.options().dtype(at::kLong);
  const at::Tensor age =
      at::arange(known - frames, known, ids).unsqueeze(1) - at::arange(known, ids).unsqueeze(0);
  at::Tensor seen = age >= 0;
  at::Tensor actions = memory.unsqueeze(1).expand({batch, frames, known, dim});
  if (config_.transformer.rotary_time()) {
    seen = seen.logical_and(age < num_frames_);
    const at::Tensor when =
        action_position_->table(num_frames_).index_select(0, age.clamp(0, num_frames_ - 1).flatten());
    actions = actions + when.view({frames, known, dim});
  }
  actions = actions.reshape({batch * frames, known, dim});
  seen = seen.unsqueeze(0).expand({batch, frames, known}).reshape({batch * frames, known});
  return [this, actions, seen](int64_t layer, const at::Tensor& x) {
    if ((layer + 1) % config_.cross_attention_every != 0) return x;
    auto* block = cross_[layer / config_.cross_attention_every]->as<nn::CrossAttentionBlockImpl>();
    return block->forward(x.flatten(0, 1), actions, seen).view(x.sizes());
  };
}

at::Tensor DynamicsModelImpl::only_frame_tokens(const at::Tensor& x) const {
  return config_.action_conditioning == "prepend" ? x.narrow(2, 0, tokens_per_frame_) : x;
}

at::Tensor DynamicsModelImpl::features(const at::Tensor& tokens, const at::Tensor& actions,
                                       const at::Tensor& mask) {
  check_inputs(tokens, mask);
  check_actions(actions);
  return features_unchecked(tokens, actions, mask);
}

at::Tensor DynamicsModelImpl::features_unchecked(const at::Tensor& tokens, const at::Tensor& actions,
                                                 const at::Tensor& mask) {
  check_layout(tokens, mask);
  TORCH_CHECK_VALUE(
      actions.dim() == 2 && actions.size(0) == tokens.size(0) && actions.size(1) == tokens.size(1) - 1,
      "DynamicsModel: expected actions (", tokens.size(0), ",", tokens.size(1) - 1,
      "), one between two frames, got ", actions.sizes());
  const at::Tensor none = at::full({actions.size(0), 1}, num_actions_, actions.options());
  const at::Tensor leading = at::cat({none, actions}, 1);
  const nn::AfterBlock after =
      cross_ ? cross_attention(action_memory(leading, 0), leading.size(1)) : nn::AfterBlock();
  return only_frame_tokens(transformer_->forward(embed(tokens, leading, mask, nullptr), true, after));
}

at::Tensor DynamicsModelImpl::features_cached(const at::Tensor& tokens, const at::Tensor& leading,
                                              const at::Tensor& mask, nn::TemporalCache& cache) {
  const int64_t offset = cache.length();
  const nn::AfterBlock after =
      cross_ ? cross_attention(cache.write_memory(kActionMemory, action_memory(leading, offset)),
                               leading.size(1))
             : nn::AfterBlock();
  return only_frame_tokens(transformer_->forward_cached(embed(tokens, leading, mask, &cache), cache, after));
}

nn::TemporalCache DynamicsModelImpl::make_cache(int64_t history) const {
  return nn::TemporalCache(config_.transformer.depth, num_frames_,
                           config_.transformer.rotary_time() ? history : 0);
}

at::Tensor DynamicsModelImpl::logits(const at::Tensor& features) {
  nn::check_input("DynamicsModel", "features", features, head_->weight.size(1), head_->weight);
  return head_->forward(features);
}

std::tuple<at::Tensor, at::Tensor> DynamicsModelImpl::cross_entropy(const at::Tensor& features,
                                                                    const at::Tensor& tokens,
                                                                    const at::Tensor& mask,
                                                                    double label_smoothing) {
  nn::check_input("DynamicsModel", "features", features, head_->weight.size(1), head_->weight);
  check_inputs(tokens, mask);
  TORCH_CHECK_VALUE(features.dim() == 4 && features.sizes().slice(0, 3) == tokens.sizes(),
                    "DynamicsModel: expected features (", tokens.size(0), ",", tokens.size(1), ",",
                    tokens.size(2), ",", head_->weight.size(1), ") of these tokens, got ", features.sizes());
  const at::Tensor places = mask.flatten().nonzero().flatten();
  return ops::linear_cross_entropy(features.flatten(0, 2).index_select(0, places), head_->weight, head_->bias,
                                   tokens.flatten().index_select(0, places), label_smoothing);
}

std::tuple<at::Tensor, at::Tensor> DynamicsModelImpl::cross_entropy_of_fixed_shape(const at::Tensor& features,
                                                                                   const at::Tensor& tokens,
                                                                                   const at::Tensor& mask,
                                                                                   double label_smoothing) {
  check_layout(tokens, mask);
  const at::Tensor logits = this->logits(features).to(at::kFloat).flatten(0, 2), targets = tokens.flatten(),
                   others = mask.flatten().logical_not();
  const at::Tensor each = at::cross_entropy_loss(logits, targets, {}, at::Reduction::None,
                                                 /*ignore_index=*/-100, label_smoothing);
  const at::Tensor found =
      logits.detach().gather(1, targets.unsqueeze(1)).squeeze(1) >= logits.detach().amax(1);
  return {each.masked_fill(others, 0).sum(), found.masked_fill(others, false).sum()};
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
  const auto unit_rows = [](const at::Tensor& t) { return t / t.norm(2, {1}, true).clamp_min(1e-6); };
  const auto normal = [&](int64_t rows) {
    return at::randn({rows, dim}, generator, at::kFloat).to(codebook.device());
  };
  // Half of a token's direction is its code's (a random near-isometry keeps the codes' geometry), half its
  // own, so that codes of one hue and several brightnesses differ too.
  const at::Tensor direction =
      unit_rows(unit_rows((codebook - codebook.mean(0)).mm(normal(width))) + unit_rows(normal(num_tokens_)));
  // Elements of N(0, 0.05) are near the scale of the other embeddings; a normalised feature along a token's
  // direction has length sqrt(dim), and gets a logit of 8.
  token_->weight().copy_(direction * (0.05 * std::sqrt(static_cast<double>(dim))));
  head_->weight.copy_(direction * (8 / std::sqrt(static_cast<double>(dim))));
}

}  // namespace genie::models
