#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "genie/training/phases.h"

namespace genie::training {
namespace {

/// Trains the latent action model, on its own losses, and the dynamics model together, as Genie does
/// (arXiv 2402.15391): the dynamics model learns from the actions as they are at each step, and gives the
/// latent action model no gradient. The tokenizer stays as it is.
class CotrainPhase : public Phase {
 public:
  explicit CotrainPhase(models::Genie genie)
      : genie_(std::move(genie)),
        latent_action_(make_latent_action_phase(genie_)),
        dynamics_(make_dynamics_phase(genie_)) {
    both_.register_module("latent_action", genie_->latent_action().ptr());
    both_.register_module("dynamics", genie_->dynamics().ptr());
  }

  std::string name() const override { return "cotrain"; }
  torch::nn::Module& model() override { return both_; }
  const config::PhaseConfig& settings() const override { return genie_->config().training.cotrain; }

  void share(const Processes& processes) override {
    latent_action_->share(processes);
    dynamics_->share(processes);
  }
  void initialize(const at::Tensor& video) override {
    latent_action_->initialize(video);
    dynamics_->initialize(video);
  }

  Totals totals(const Part& part) const override {
    Totals sums = dynamics_->totals(part);
    const Totals further = latent_action_->totals(part);
    sums.insert(sums.end(), further.begin(), further.end());
    return sums;
  }

  PartResult loss(const Part& part, const Totals& batch) override {
    // First: the first batch places the actions' codes.
    PartResult both = latent_action_->loss(part, {batch.begin() + 1, batch.end()});
    const PartResult dynamics = dynamics_->loss(with_codes(part), {batch[0]});
    both.values.insert(both.values.end(), dynamics.values.begin(), dynamics.values.end());
    both.values.emplace_back("latent_action_loss", both.loss.detach());
    both.values.emplace_back("dynamics_loss", dynamics.loss.detach());
    both.loss = both.loss + dynamics.loss;
    return both;
  }

  void after_step(int64_t step, bool skipped) override { latent_action_->after_step(step, skipped); }
  Metrics gathered() override { return latent_action_->gathered(); }
  TensorMap gathering() const override { return latent_action_->gathering(); }
  void set_gathering(const TensorMap& tensors) override { latent_action_->set_gathering(tensors); }
  std::string alarm() const override { return latent_action_->alarm(); }

  Metrics validate(const Part& part) override {
    Metrics metrics = latent_action_->validate(part);
    const Metrics further = dynamics_->validate(part);
    metrics.insert(metrics.end(), further.begin(), further.end());
    return metrics;
  }

 private:
  /// The actions without the dropout that the latent action model trains with.
  Part with_codes(const Part& part) {
    at::NoGradGuard no_grad;
    const bool training = genie_->latent_action()->is_training();
    genie_->latent_action()->eval();
    Part coded = part;
    coded.tokens = genie_->tokenizer()->encode(part.video);
    coded.actions = genie_->latent_action()->infer(part.video);
    genie_->latent_action()->train(training);
    return coded;
  }

  models::Genie genie_;
  std::unique_ptr<Phase> latent_action_, dynamics_;
  torch::nn::Module both_;
};

}  // namespace

std::unique_ptr<Phase> make_cotrain_phase(models::Genie genie) {
  return std::make_unique<CotrainPhase>(std::move(genie));
}

}  // namespace genie::training
