#include "genie/training/losses.h"

#include <ATen/ATen.h>

namespace genie::training {

at::Tensor tokenizer_loss(const models::TokenizerOutput& output, const config::TokenizerConfig& config) {
  const at::Tensor squared = (output.reconstruction.to(at::kFloat) - output.patches).square();
  if (config.loss == "mse")
    return squared.mean() + output.quantizer_loss / static_cast<double>(config.quantizer.code_dim);
  return squared.sum(-1).mean() + output.quantizer_loss;
}

at::Tensor latent_action_loss(const models::LatentActionOutput& output,
                              const config::LatentActionConfig& config, const at::Tensor& mean_change) {
  const at::Tensor prediction = output.prediction.to(at::kFloat);
  at::Tensor error = config.loss == "mse" ? (prediction - output.target).square()
                                          : at::binary_cross_entropy_with_logits(prediction, output.target,
                                                                                 {}, {}, at::Reduction::None);
  if (config.change_weight > 0) {
    const at::Tensor change = (output.target - output.previous).abs();
    const at::Tensor mean = mean_change.defined() ? mean_change : change.mean();
    const at::Tensor weight = config.change_weight / mean.to(at::kDouble).clamp_min(1e-6);
    error = error * (1 + weight.to(at::kFloat) * change);
  }
  return error.sum(-1).mean() + output.quantizer_loss;
}

at::Tensor psnr(const at::Tensor& a, const at::Tensor& b, int64_t kept) {
  const at::Tensor mse = (a.to(at::kFloat) - b).square().flatten(kept).mean(-1);
  return -10 * at::log10(mse.clamp_min(1e-10));
}

}  // namespace genie::training
