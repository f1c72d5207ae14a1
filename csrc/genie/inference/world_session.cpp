#include "genie/inference/world_session.h"

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>

#include <utility>

#include "genie/core/error.h"
#include "genie/inference/precision.h"
#include "genie/nn/autocast.h"

namespace genie::inference {
namespace {

/// Video (B,T,3,H,W) in [0,1] to uint8 (B,T,H,W,3) on the CPU.
at::Tensor to_pixels(const at::Tensor& video) {
  return video.mul(255).round_().to(at::kByte).permute({0, 1, 3, 4, 2}).contiguous().cpu();
}

models::Genie evaluating(models::Genie genie) {
  check(!genie->is_training(), "a session plays a model in evaluation mode; call eval() on it first");
  return genie;
}

const config::InferenceConfig& supported(const config::InferenceConfig& options, const at::Device& device) {
  check_precision(options.dtype, device);
  return options;
}

}  // namespace

WorldSession::WorldSession(models::Genie genie, const at::Tensor& prompt, const at::Tensor& actions,
                           const config::InferenceConfig& options, uint64_t seed)
    : genie_(evaluating(std::move(genie))),
      world_(genie_->dynamics(), prompt, actions, supported(options, prompt.device()), seed),
      decoder_(genie_->tokenizer(), options.history) {
  decode_new();
}

WorldSession WorldSession::from_frames(models::Genie genie, const at::Tensor& video,
                                       const config::InferenceConfig& options, uint64_t seed) {
  evaluating(genie);
  const at::NoGradGuard no_grad;
  const at::Tensor input = models::to_model_input(video, genie->parameters().front().device());
  const at::Tensor tokens = genie->tokenizer()->encode(input);
  const at::Tensor actions = input.size(1) > 1
                                 ? genie->latent_action()->infer(input)
                                 : at::zeros({input.size(0), 0}, input.options().dtype(at::kLong));
  return {std::move(genie), tokens, actions, options, seed};
}

WorldSession::WorldSession(models::Genie genie, const SessionState& state)
    : genie_(evaluating(std::move(genie))),
      world_(genie_->dynamics(), (supported(state.options, state.tokens.device()), state)),
      decoder_(genie_->tokenizer(), state.options.history) {
  const auto& data = genie_->config().data;
  const int64_t batch = state.tokens.size(0), frames = state.frames.size(1);
  const std::vector<int64_t> shape = {batch, frames, data.height, data.width, 3};
  TORCH_CHECK_VALUE(frames >= 1 && state.frames.sizes() == shape && state.actions.size(0) == batch, "frames ",
                    state.frames.sizes(), " after actions ", state.actions.sizes(), " of ", batch,
                    " samples");
  decoder_.restore(state.decoder, state.first + state.tokens.size(1));
  for (int64_t t = 0; t < frames; ++t) frames_.push_back(state.frames.select(1, t).contiguous());
  for (int64_t t = 0; t < state.actions.size(1); ++t) actions_.push_back(state.actions.select(1, t).clone());
}

SessionState WorldSession::state() const {
  const std::lock_guard lock(mutex_);
  SessionState state = world_.state();
  state.decoder = decoder_.state();
  state.frames = at::stack(std::vector<at::Tensor>(frames_.begin(), frames_.end()), 1);
  state.actions = actions_.empty() ? at::zeros({batch_size(), 0}, at::kLong) : at::stack(actions_, 1);
  return state;
}

WorldSession::WorldSession(WorldSession&& other) noexcept
    : genie_(std::move(other.genie_)),
      world_(std::move(other.world_)),
      decoder_(std::move(other.decoder_)),
      frames_(std::move(other.frames_)),
      actions_(std::move(other.actions_)) {}

WorldSession::WorldSession(const WorldSession& other, std::optional<uint64_t> seed)
    : genie_(other.genie_),
      world_(other.world_.fork(seed.value_or(other.world_.seed()))),
      decoder_(other.decoder_.fork()),
      frames_(other.frames_),
      actions_(other.actions_) {}

/// Decodes the frames that there are tokens of and no picture yet.
void WorldSession::decode_new() {
  const at::NoGradGuard no_grad;
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const auto& history = world_.history();
  const int64_t next = frames_.empty() ? 0 : history.length() - 1;
  const at::Tensor pixels = to_pixels(decoder_.decode(history, next));
  for (int64_t t = 0; t < pixels.size(1); ++t) frames_.push_back(pixels.select(1, t).contiguous());
  while (static_cast<int64_t>(frames_.size()) > world_.options().history + 1) frames_.pop_front();
}

at::Tensor WorldSession::step(const at::Tensor& actions) {
  const std::lock_guard lock(mutex_);
  evaluating(genie_);
  const at::Tensor on_device = actions.to(world_.history().newest().device());
  const nn::AutocastScope precision(on_device.device().type(), nn::dtype_named(world_.options().dtype));
  world_.step(on_device);
  actions_.push_back(actions.to(at::kCPU, /*non_blocking=*/false, /*copy=*/true));
  decode_new();
  return frames_.back();
}

at::Tensor WorldSession::rewind(int64_t steps) {
  const std::lock_guard lock(mutex_);
  const auto taken = static_cast<int64_t>(actions_.size());
  const int64_t held = static_cast<int64_t>(frames_.size()) - 1;
  check(steps >= 0, "rewind: the number of steps must not be negative, got ", steps);
  check(steps <= taken, "rewind: ", steps, " steps back, but only ", taken, " were taken since the prompt");
  check(steps <= held, "rewind: ", steps, " steps back, but ", held,
        " can be taken back; a session holds the last inference.history = ", world_.options().history);
  world_.rewind(steps);
  frames_.erase(frames_.end() - steps, frames_.end());
  actions_.erase(actions_.end() - steps, actions_.end());
  return frames_.back();
}

WorldSession WorldSession::fork(std::optional<uint64_t> seed) const {
  const std::lock_guard lock(mutex_);
  return {*this, seed};
}

at::Tensor WorldSession::frame() const {
  const std::lock_guard lock(mutex_);
  return frames_.back();
}

at::Tensor WorldSession::frames() const {
  const std::lock_guard lock(mutex_);
  return at::stack(std::vector<at::Tensor>(frames_.begin(), frames_.end()), 1);
}

at::Tensor WorldSession::tokens() const {
  const std::lock_guard lock(mutex_);
  return world_.history().newest();
}

int64_t WorldSession::batch_size() const { return world_.batch_size(); }

int64_t WorldSession::num_actions() const { return genie_->config().latent_action.quantizer.num_codes; }

int64_t WorldSession::num_steps_taken() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(actions_.size());
}

uint64_t WorldSession::seed() const { return world_.seed(); }

at::Tensor WorldSession::actions() const {
  const std::lock_guard lock(mutex_);
  return actions_.empty() ? at::zeros({batch_size(), 0}, at::kLong) : at::stack(actions_, 1);
}

config::InferenceConfig WorldSession::options() const {
  const std::lock_guard lock(mutex_);
  return world_.options();
}

void WorldSession::configure(const config::InferenceConfig& options) {
  const std::lock_guard lock(mutex_);
  check(options.history == world_.options().history && options.dtype == world_.options().dtype,
        "a session's history and dtype stay what they were when it began");
  world_.configure(options);
}

}  // namespace genie::inference
