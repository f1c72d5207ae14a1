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

  /// Those of both phases, none of which share a name but for the video.
  TensorMap inputs(const Part& part) override {
    TensorMap tensors = dynamics_->inputs(part);
    tensors.merge(latent_action_->inputs(part));
    return tensors;
  }

  /// The dynamics model's masked tokens, and those of the latent action model.
  at::Tensor totals(const TensorMap& inputs) const override {
    return at::cat({dynamics_->totals(inputs), latent_action_->totals(inputs)});
  }

  void keep_to_device() override {
    latent_action_->keep_to_device();
    dynamics_->keep_to_device();
  }
  std::vector<at::Tensor> take_statistics() override { return latent_action_->take_statistics(); }
  void set_statistics(const std::vector<at::Tensor>& statistics) override {
    latent_action_->set_statistics(statistics);
  }

  PartResult loss(const TensorMap& inputs, const at::Tensor& batch) override {
    // First: the first batch places the actions' codes.
    PartResult both = latent_action_->loss(inputs, batch.narrow(0, 1, batch.size(0) - 1));
    const PartResult dynamics = dynamics_->loss(with_codes(inputs), batch.narrow(0, 0, 1));
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
  TensorMap with_codes(const TensorMap& inputs) {
    at::NoGradGuard no_grad;
    const bool training = genie_->latent_action()->is_training();
    genie_->latent_action()->eval();
    TensorMap coded = inputs;
    coded["tokens"] = genie_->tokenizer()->encode(inputs.at("video"));
    coded["actions"] = genie_->latent_action()->infer(inputs.at("video"));
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
