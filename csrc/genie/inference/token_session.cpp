#include "genie/inference/token_session.h"

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "genie/core/random.h"
#include "genie/inference/maskgit.h"

namespace genie::inference {

TokenSession::TokenSession(models::DynamicsModel model, const at::Tensor& prompt, const at::Tensor& actions,
                           const config::InferenceConfig& options, uint64_t seed)
    : model_(std::move(model)),
      options_(options),
      seed_(seed),
      history_(model_->num_frames() - 1 + options.history),
      cache_(model_->make_cache(options.history)) {
  TORCH_CHECK_VALUE(prompt.dim() == 3 && prompt.size(1) >= 1 && prompt.size(2) == model_->tokens_per_frame(),
                    "session: expected prompt tokens (B,T0,", model_->tokens_per_frame(),
                    ") with T0 >= 1, got ", prompt.sizes());
  TORCH_CHECK_VALUE(
      actions.dim() == 2 && actions.size(0) == prompt.size(0) && actions.size(1) == prompt.size(1) - 1,
      "session: expected actions (", prompt.size(0), ",", prompt.size(1) - 1,
      "), those between the prompt's frames, got ", actions.sizes());
  model_->check_tokens(prompt);
  model_->check_actions(actions);
  // The first frame counts as led to by no action.
  history_.push(prompt.select(1, 0).clone(),
                at::full({prompt.size(0)}, model_->num_actions(), actions.options()));
  for (int64_t t = 1; t < prompt.size(1); ++t) {
    history_.push(prompt.select(1, t).clone(), actions.select(1, t - 1).clone());
  }
}

TokenSession::TokenSession(models::DynamicsModel model, const SessionState& state)
    : model_(std::move(model)),
      options_(state.options),
      seed_(state.seed),
      history_(model_->num_frames() - 1 + state.options.history),
      cache_(model_->make_cache(state.options.history)),
      cache_begin_(state.world.begin) {
  const int64_t frames = state.tokens.size(1), length = state.first + frames;
  TORCH_CHECK_VALUE(frames >= 1 && state.tokens.size(2) == model_->tokens_per_frame() && state.first >= 0 &&
                        state.leading.sizes() == state.tokens.sizes().slice(0, 2),
                    "tokens ", state.tokens.sizes(), " led to by ", state.leading.sizes(), " from frame ",
                    state.first, " on, with ", model_->tokens_per_frame(), " tokens a frame");
  model_->check_tokens(state.tokens);
  model_->check_actions(state.leading.masked_fill(state.leading == model_->num_actions(), 0));
  TORCH_CHECK_VALUE(cache_begin_ >= 0 && cache_begin_ <= length - state.world.length,
                    "a cache of the frames ", cache_begin_, " to ", cache_begin_ + state.world.length, " of ",
                    length);
  history_.restore(state.first, state.tokens, state.leading);
  cache_.restore(state.world.tensors, state.world.length, state.world.reached);
}

SessionState TokenSession::state() const {
  SessionState state;
  state.options = options_;
  state.seed = seed_;
  state.first = history_.first();
  state.tokens = history_.tokens(history_.first(), history_.length());
  state.leading = history_.leading(history_.first(), history_.length());
  state.world = CacheState::of(cache_, cache_begin_);
  return state;
}

/// Brings the frames that the next one sees into the cache.
void TokenSession::encode_past() {
  const int64_t next = history_.length(), window = model_->num_frames();
  // Learned time positions number the frames of the window, so all of them change when it slides.
  const bool slides = !model_->config().transformer.rotary_time();
  const int64_t begin = slides ? std::max<int64_t>(0, next - window + 1) : 0;
  if (cache_begin_ != begin || cache_.length() > next - begin) {
    cache_.clear();
    cache_begin_ = begin;
  }
  while (cache_begin_ + cache_.length() < next) {
    const int64_t first = cache_begin_ + cache_.length();
    const int64_t count = cache_.length() == 0 ? std::min(next - first, window) : 1;
    const at::Tensor tokens = history_.tokens(first, first + count);
    at::Tensor leading = history_.leading(first, first + count);
    if (cache_.length() == 0) leading.select(1, 0).fill_(model_->num_actions());
    model_->features_cached(tokens, leading, at::zeros_like(tokens, at::kBool), cache_);
    cache_.commit(count);
  }
  history_.trim();
}

at::Tensor TokenSession::step(const at::Tensor& actions) {
  TORCH_CHECK_VALUE(actions.dim() == 1 && actions.size(0) == batch_size(), "session: expected ", batch_size(),
                    " actions, one a sample, got ", actions.sizes());
  model_->check_actions(actions);
  const at::NoGradGuard no_grad;
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  encode_past();
  const at::Tensor tokens =
      decode_frame(model_, actions, cache_, options_, mix_seed(seed_, Stream::sampling, history_.length()));
  history_.push(tokens, actions.clone());
  return tokens;
}

void TokenSession::rewind(int64_t frames) {
  history_.pop(frames);
  const int64_t kept = history_.length() - cache_begin_;
  if (kept >= cache_.length()) return;
  if (cache_.can_truncate(std::max<int64_t>(kept, 0))) {
    cache_.truncate(std::max<int64_t>(kept, 0));
  } else {
    cache_.clear();
  }
}

TokenSession TokenSession::fork(uint64_t seed) const {
  TokenSession copy(*this);
  copy.cache_ = cache_.clone();
  copy.seed_ = seed;
  return copy;
}

}  // namespace genie::inference
