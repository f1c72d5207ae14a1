#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "genie/core/random.h"
#include "genie/training/device.h"
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

  /// Also which tokens are masked, and with context_corruption those shown in place of others.
  TensorMap inputs(const Part& part) override {
    TensorMap tensors = Phase::inputs(part);
    const at::Tensor& read = part.tokens.defined() ? part.tokens : part.video;
    tensors["mask"] = sent_to(read.device(), draw_mask(part.samples, read.size(1)));
    if (config().context_corruption > 0) draw_corruption(part.samples, read.size(1), read.device(), tensors);
    if (on_device_ && part.tokens.defined()) {
      genie_->dynamics()->check_tokens(part.tokens);
      genie_->dynamics()->check_actions(part.actions);
    }
    return tensors;
  }

  /// Masked tokens.
  at::Tensor totals(const TensorMap& inputs) const override {
    return inputs.at("mask").sum().to(at::kDouble).view(1);
  }

  void keep_to_device() override { on_device_ = true; }

  PartResult loss(const TensorMap& inputs, const at::Tensor& batch) override {
    const auto [tokens, actions] = read(inputs);
    const at::Tensor &mask = inputs.at("mask"), shown = corrupt(tokens, inputs);
    models::DynamicsModel& model = genie_->dynamics();
    const double smoothing = config().label_smoothing;
    // The targets are the tokens as read.
    const auto [sum, correct] =
        on_device_ ? model->cross_entropy_of_fixed_shape(model->features_unchecked(shown, actions, mask),
                                                         tokens, mask, smoothing)
                   : model->cross_entropy(model->features(shown, actions, mask), tokens, mask, smoothing);
    const at::Tensor count = batch[0].to(at::kFloat);
    return {sum / count, {{"accuracy", correct / count}}};
  }

  /// All tokens of the last frame masked; beside it the share of tokens that are the last frame's again.
  Metrics validate(const Part& part) override {
    const auto [tokens, actions] = read(Phase::inputs(part));
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

  std::pair<at::Tensor, at::Tensor> read(const TensorMap& inputs) {
    if (inputs.count("tokens")) return {inputs.at("tokens"), inputs.at("actions")};
    at::NoGradGuard no_grad;
    const at::Tensor& video = inputs.at("video");
    return {genie_->tokenizer()->encode(video), genie_->latent_action()->infer(video)};
  }

  /// The rate is drawn for each sample, whether a frame is masked at all for each frame; the first one never
  /// is.
  at::Tensor draw_mask(const std::vector<int64_t>& samples, int64_t frames) const {
    const int64_t per_frame = tokens_per_frame_, later = frames - 1;
    const at::Tensor drawn = sample_uniform(samples, {1 + later + later * per_frame}, seed_, Stream::mask);
    const double low = config().min_mask_rate, high = config().max_mask_rate;
    const at::Tensor rate = (low + (high - low) * drawn.narrow(1, 0, 1)).unsqueeze(-1);
    at::Tensor chosen = drawn.narrow(1, 1, later) < config().masked_frame_share;
    chosen.select(1, later - 1).fill_(true);  // so that no sample is without a loss
    const at::Tensor mask =
        (drawn.narrow(1, 1 + later, later * per_frame).view({-1, later, per_frame}) < rate)
            .logical_and_(chosen.unsqueeze(-1));
    return at::cat({at::zeros_like(mask.narrow(1, 0, 1)), mask}, 1);
  }

  /// Up to context_corruption of the tokens are shown as random ones, the share drawn for each sample.
  void draw_corruption(const std::vector<int64_t>& samples, int64_t frames, const at::Device& device,
                       TensorMap& inputs) const {
    const int64_t count = frames * tokens_per_frame_, codes = genie_->config().tokenizer.quantizer.num_codes;
    const at::Tensor drawn = sample_uniform(samples, {1 + 2 * count}, seed_, Stream::corruption);
    inputs["corrupted"] =
        sent_to(device, drawn.narrow(1, 1, count) < config().context_corruption * drawn.narrow(1, 0, 1));
    inputs["random"] = sent_to(
        device,
        (drawn.narrow(1, 1 + count, count) * static_cast<double>(codes)).to(at::kLong).clamp_max(codes - 1));
  }

  static at::Tensor corrupt(const at::Tensor& tokens, const TensorMap& inputs) {
    if (!inputs.count("corrupted")) return tokens;
    return at::where(inputs.at("corrupted"), inputs.at("random"), tokens.flatten(1)).view(tokens.sizes());
  }

  models::Genie genie_;
  uint64_t seed_;
  int64_t tokens_per_frame_;
  bool on_device_ = false;  // see keep_to_device
};

}  // namespace

std::unique_ptr<Phase> make_dynamics_phase(models::Genie genie) {
  return std::make_unique<DynamicsPhase>(std::move(genie));
}

}  // namespace genie::training
