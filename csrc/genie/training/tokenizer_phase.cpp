#include <ATen/ATen.h>

#include "genie/core/random.h"
#include "genie/training/codebook_phase.h"
#include "genie/training/losses.h"
#include "genie/training/phases.h"

namespace genie::training {
namespace {

class TokenizerPhase : public CodebookPhase {
 public:
  explicit TokenizerPhase(models::Genie genie)
      : CodebookPhase(genie->tokenizer()->quantizer(), genie->config().tokenizer.quantizer,
                      genie->config().training.seed),
        genie_(std::move(genie)) {}

  std::string name() const override { return "tokenizer"; }
  torch::nn::Module& model() override { return *genie_->tokenizer(); }
  const config::PhaseConfig& settings() const override { return genie_->config().training.tokenizer; }

  void initialize(const at::Tensor& video) override {
    genie_->tokenizer()->initialize_from(video, mix_seed(seed_, Stream::initialization, 1));
  }

  PartResult loss(const TensorMap& inputs, const at::Tensor& batch) override {
    const at::Tensor& video = inputs.at("video");
    const models::TokenizerOutput output = genie_->tokenizer()->forward(video);
    const at::Tensor share = share_of(static_cast<double>(video.size(0)), batch);
    const at::Tensor quality = psnr(output.reconstruction.detach(), output.patches, 2).mean();
    return {tokenizer_loss(output, genie_->config().tokenizer) * share,
            {{"psnr", quality * share}, {"commitment", output.quantizer_loss.detach() * share}}};
  }

  Metrics validate(const Part& part) override {
    const models::TokenizerOutput output = genie_->tokenizer()->forward(part.video);
    return {{"loss", tokenizer_loss(output, genie_->config().tokenizer).item<double>()},
            {"psnr", psnr(output.reconstruction.clamp(0, 1), output.patches, 2).mean().item<double>()}};
  }

 private:
  models::Genie genie_;
};

}  // namespace

std::unique_ptr<Phase> make_tokenizer_phase(models::Genie genie) {
  return std::make_unique<TokenizerPhase>(std::move(genie));
}

}  // namespace genie::training
