#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "genie/core/random.h"
#include "genie/training/codebook_phase.h"
#include "genie/training/device.h"
#include "genie/training/losses.h"
#include "genie/training/phases.h"
#include "genie/training/sample_noise.h"

namespace genie::training {
namespace {

class LatentActionPhase : public CodebookPhase {
 public:
  explicit LatentActionPhase(models::Genie genie)
      : CodebookPhase(genie->latent_action()->quantizer(), genie->config().latent_action.quantizer,
                      genie->config().training.seed),
        genie_(std::move(genie)),
        grid_(genie_->latent_action()->grid()) {}

  std::string name() const override { return "latent_action"; }
  torch::nn::Module& model() override { return *genie_->latent_action(); }
  const config::PhaseConfig& settings() const override { return genie_->config().training.latent_action; }

  /// With history_mask also which patches are hidden from the predictor.
  TensorMap inputs(const Part& part) override {
    TensorMap tensors = Phase::inputs(part);
    const double hide = genie_->config().latent_action.history_mask;
    if (hide > 0) {
      const at::Tensor drawn =
          sample_uniform(part.samples, {part.video.size(1) - 1, grid_.count()}, seed_, Stream::mask);
      tensors["hidden"] = sent_to(part.video.device(), drawn < hide);
    }
    return tensors;
  }

  /// Samples and, where changes weigh more, the sum and number of the patches' changes.
  at::Tensor totals(const TensorMap& inputs) const override {
    const at::Tensor samples = Phase::totals(inputs);
    if (genie_->config().latent_action.change_weight == 0) return samples;
    at::NoGradGuard no_grad;
    const at::Tensor& video = inputs.at("video");
    const int64_t steps = video.size(1) - 1;
    const at::Tensor patches = nn::patchify(video, grid_);
    const at::Tensor change = (patches.narrow(1, 1, steps) - patches.narrow(1, 0, steps)).abs();
    const auto count = static_cast<double>(change.numel());
    return at::cat({samples, change.sum(at::kDouble).view(1), at::full_like(samples, count)});
  }

  PartResult loss(const TensorMap& inputs, const at::Tensor& batch) override {
    models::LatentActionModel& model = genie_->latent_action();
    const at::Tensor& video = inputs.at("video");
    const auto hidden = inputs.find("hidden");
    const models::LatentActionOutput output =
        model->forward(video, hidden == inputs.end() ? at::Tensor() : hidden->second);
    const at::Tensor share = share_of(static_cast<double>(video.size(0)), batch);
    const at::Tensor mean_change = batch.size(0) > 1 ? batch[1] / batch[2] : at::Tensor();
    return {
        latent_action_loss(output, genie_->config().latent_action, mean_change) * share,
        {{"psnr", predicted_psnr(output) * share}, {"commitment", output.quantizer_loss.detach() * share}}};
  }

  Metrics validate(const Part& part) override {
    models::LatentActionModel& model = genie_->latent_action();
    const models::LatentActionOutput output = model->forward(part.video);
    // How much the action matters: the same frames under actions that were taken elsewhere.
    const int64_t steps = part.video.size(1) - 1;
    const at::Tensor others =
        output.actions.flatten().roll({steps / 2 + 1}, {0}).view(output.actions.sizes());
    const at::Tensor next = part.video.narrow(1, 1, steps);
    const double quality = predicted_psnr(output).item<double>();
    return {{"loss", latent_action_loss(output, genie_->config().latent_action).item<double>()},
            {"psnr", quality},
            {"delta_psnr",
             quality -
                 psnr(model->predict(part.video.narrow(1, 0, steps), others), next, 2).mean().item<double>()},
            {"copy_psnr", psnr(output.previous, output.target, 2).mean().item<double>()}};
  }

 private:
  at::Tensor predicted_psnr(const models::LatentActionOutput& output) const {
    const at::Tensor prediction = output.prediction.detach();
    const bool logits = genie_->config().latent_action.loss != "mse";
    return psnr(logits ? prediction.sigmoid() : prediction.clamp(0, 1), output.target, 2).mean();
  }

  models::Genie genie_;
  nn::PatchGrid grid_;
};

}  // namespace

std::unique_ptr<Phase> make_latent_action_phase(models::Genie genie) {
  return std::make_unique<LatentActionPhase>(std::move(genie));
}

}  // namespace genie::training
