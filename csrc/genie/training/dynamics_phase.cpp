#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "genie/core/random.h"
#include "genie/training/losses.h"
#include "genie/training/phases.h"
#include "genie/training/sample_noise.h"

namespace genie::training {
namespace {

/// Trains the dynamics model on tokens and latent actions of the two models trained before, which stay as
/// they are.
class DynamicsPhase : public Phase {
 public:
  explicit DynamicsPhase(models::Genie genie)
      : genie_(std::move(genie)),
        seed_(genie_->config().training.seed),
        tokens_per_frame_(genie_->tokenizer_grid().count()) {}

  std::string name() const override { return "dynamics"; }
  torch::nn::Module& model() override { return *genie_->dynamics(); }
  const config::PhaseConfig& settings() const override { return genie_->config().training.dynamics; }

  void initialize(const at::Tensor&) override {
    genie_->dynamics()->initialize_from(genie_->tokenizer()->quantizer()->codebook(),
                                        mix_seed(seed_, Stream::initialization, 3));
  }

  /// Masked tokens.
  Totals totals(const Part& part) const override {
    const int64_t frames = part.tokens.defined() ? part.tokens.size(1) : part.video.size(1);
    return {draw_mask(part.samples, frames, at::kCPU).sum().item<double>()};
  }

  PartResult loss(const Part& part, const Totals& batch) override {
    const auto [tokens, actions] = read(part);
    const at::Tensor mask = draw_mask(part.samples, tokens.size(1), tokens.device());
    models::DynamicsModel& model = genie_->dynamics();
    const at::Tensor features = model->features(corrupt(tokens, part.samples), actions, mask);
    // The targets are the tokens as read.
    const auto [sum, correct] = model->cross_entropy(features, tokens, mask, config().label_smoothing);
    return {sum / batch[0], {{"accuracy", correct / batch[0]}}};
  }

  /// All tokens of the last frame masked; beside it the share of tokens that are the last frame's again.
  Metrics validate(const Part& part) override {
    const auto [tokens, actions] = read(part);
    const int64_t last = tokens.size(1) - 1;
    at::Tensor mask = at::zeros_like(tokens, tokens.options().dtype(at::kBool));
    mask.select(1, last).fill_(true);
    models::DynamicsModel& model = genie_->dynamics();
    const at::Tensor logits =
        model->logits(model->features(tokens, actions, mask).select(1, last)).to(at::kFloat).flatten(0, 1);
    const at::Tensor targets = tokens.select(1, last).flatten();
    return {{"cross_entropy", at::cross_entropy_loss(logits, targets).item<double>()},
            {"accuracy", (logits.argmax(-1) == targets).to(at::kDouble).mean().item<double>()},
            {"copy_accuracy",
             (tokens.select(1, last - 1).flatten() == targets).to(at::kDouble).mean().item<double>()}};
  }

 private:
  const config::DynamicsConfig& config() const { return genie_->config().dynamics; }

  std::pair<at::Tensor, at::Tensor> read(const Part& part) {
    if (part.tokens.defined()) return {part.tokens, part.actions};
    at::NoGradGuard no_grad;
    return {genie_->tokenizer()->encode(part.video), genie_->latent_action()->infer(part.video)};
  }

  /// The rate is drawn for each sample, whether a frame is masked at all for each frame; the first one never
  /// is.
  at::Tensor draw_mask(const std::vector<int64_t>& samples, int64_t frames, const at::Device& device) const {
    const int64_t per_frame = tokens_per_frame_, later = frames - 1;
    const at::Tensor drawn =
        sample_uniform(samples, {1 + later + later * per_frame}, seed_, Stream::mask, device);
    const double low = config().min_mask_rate, high = config().max_mask_rate;
    const at::Tensor rate = (low + (high - low) * drawn.narrow(1, 0, 1)).unsqueeze(-1);
    at::Tensor chosen = drawn.narrow(1, 1, later) < config().masked_frame_share;
    chosen.select(1, later - 1).fill_(true);  // so that no sample is without a loss
    const at::Tensor mask =
        (drawn.narrow(1, 1 + later, later * per_frame).view({-1, later, per_frame}) < rate)
            .logical_and_(chosen.unsqueeze(-1));
    return at::cat({at::zeros_like(mask.narrow(1, 0, 1)), mask}, 1);
  }

  /// Random tokens in place of up to context_corruption of the tokens shown, the share drawn for each sample.
  at::Tensor corrupt(const at::Tensor& tokens, const std::vector<int64_t>& samples) const {
    if (config().context_corruption == 0) return tokens;
    const int64_t count = tokens.size(1) * tokens.size(2),
                  codes = genie_->config().tokenizer.quantizer.num_codes;
    const at::Tensor drawn =
        sample_uniform(samples, {1 + 2 * count}, seed_, Stream::corruption, tokens.device());
    const at::Tensor hit = drawn.narrow(1, 1, count) < config().context_corruption * drawn.narrow(1, 0, 1);
    const at::Tensor random =
        (drawn.narrow(1, 1 + count, count) * static_cast<double>(codes)).to(at::kLong).clamp_max(codes - 1);
    return at::where(hit, random, tokens.flatten(1)).view(tokens.sizes());
  }

  models::Genie genie_;
  uint64_t seed_;
  int64_t tokens_per_frame_;
};

}  // namespace

std::unique_ptr<Phase> make_dynamics_phase(models::Genie genie) {
  return std::make_unique<DynamicsPhase>(std::move(genie));
}

}  // namespace genie::training
