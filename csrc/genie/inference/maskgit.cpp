#include "genie/inference/maskgit.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "genie/core/random.h"
#include "genie/inference/token_session.h"
#include "genie/ops/kernel_query.h"
#include "genie/ops/maskgit/maskgit_step.h"

namespace genie::inference {
namespace {

/// The op for logits (B,M,K) of masked places; on a device it has no kernel for, on the CPU. Returns tokens
/// and masks (B,M).
std::pair<at::Tensor, at::Tensor> refine(const at::Tensor& logits, int64_t keep_masked,
                                         const config::InferenceConfig& config, uint64_t seed) {
  const at::Device device = logits.device();
  const at::Tensor scores = ops::has_kernel("genie::maskgit_step", logits) ? logits : logits.cpu();
  const std::vector<int64_t> shape = {scores.size(0), scores.size(1)};
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const at::Tensor sample_noise = at::rand(shape, generator, at::TensorOptions(at::kFloat));
  // Confidence needs no noise of its own.
  const at::Tensor order_noise =
      config.unmasking == "random" ? at::rand(shape, generator, at::TensorOptions(at::kFloat)) : sample_noise;
  const auto [tokens, mask] =
      ops::maskgit_step(scores, at::zeros(shape, scores.options().dtype(at::kLong)),
                        at::ones(shape, scores.options().dtype(at::kBool)), sample_noise.to(scores.device()),
                        order_noise.to(scores.device()), keep_masked,
                        {.temperature = config.temperature,
                         .top_k = config.top_k,
                         .top_p = config.top_p,
                         .unmask = config.unmasking});
  return {tokens.to(device), mask.to(device)};
}

}  // namespace

int64_t num_masked(const std::string& schedule, int64_t step, int64_t steps, int64_t total) {
  TORCH_CHECK_VALUE(schedule == "cosine" || schedule == "linear",
                    "MaskGIT: schedule must be cosine or linear, got '", schedule, "'");
  TORCH_CHECK_VALUE(steps >= 1 && step >= 0 && step <= steps, "MaskGIT: step ", step, " of ", steps);
  if (step == steps) return 0;
  const double ratio = static_cast<double>(step) / static_cast<double>(steps);
  const double share = schedule == "cosine" ? std::cos(ratio * std::numbers::pi / 2) : 1 - ratio;
  return std::min(total, static_cast<int64_t>(std::floor(share * static_cast<double>(total))));
}

at::Tensor decode_frame(models::DynamicsModel& model, const at::Tensor& leading, nn::TemporalCache& cache,
                        const config::InferenceConfig& config, uint64_t seed) {
  const int64_t batch = leading.size(0), total = model->tokens_per_frame();
  const at::Tensor tokens = at::zeros({batch, total}, leading.options());
  const at::Tensor mask = at::ones({batch, total}, leading.options().dtype(at::kBool));
  at::Tensor places = at::arange(total, leading.options()).expand({batch, total});  // those masked
  for (int64_t step = 1; step <= config.steps; ++step) {
    // All samples have as many masked places, so the places stay a rectangle.
    const int64_t masked = places.size(1), keep = num_masked(config.schedule, step, config.steps, total);
    if (keep >= masked) continue;  // a step that reveals nothing changes nothing
    at::Tensor features =
        model->features_cached(tokens.unsqueeze(1), leading.unsqueeze(1), mask.unsqueeze(1), cache)
            .select(1, 0);
    if (masked < total) {
      features = features.gather(1, places.unsqueeze(-1).expand({batch, masked, features.size(2)}));
    }
    const auto [drawn, still] =
        refine(model->logits(features), keep, config, mix_seed(seed, static_cast<uint64_t>(step)));
    tokens.scatter_(1, places, drawn);
    mask.scatter_(1, places, still);
    places = places.masked_select(still).view({batch, keep});
  }
  return tokens;
}

at::Tensor generate(models::DynamicsModel& model, const at::Tensor& prompt, const at::Tensor& actions,
                    const config::InferenceConfig& config, uint64_t seed) {
  TORCH_CHECK_VALUE(prompt.dim() == 3 && prompt.size(1) >= 1 && prompt.size(2) == model->tokens_per_frame(),
                    "generate: expected prompt tokens (B,T0,", model->tokens_per_frame(),
                    ") with T0 >= 1, got ", prompt.sizes());
  const int64_t known = prompt.size(1) - 1, count = actions.dim() == 2 ? actions.size(1) - known : -1;
  TORCH_CHECK_VALUE(actions.dim() == 2 && actions.size(0) == prompt.size(0) && count >= 0,
                    "generate: expected actions (", prompt.size(0), ",", known, " + new frames), got ",
                    actions.sizes());
  model->check_tokens(prompt);
  model->check_actions(actions);
  if (count == 0) return prompt.narrow(1, 0, 0);
  const bool was_training = model->is_training();
  model->eval();
  config::InferenceConfig forward_only = config;
  forward_only.history = 0;
  TokenSession session(model, prompt, actions.narrow(1, 0, known), forward_only, seed);
  std::vector<at::Tensor> frames;
  for (int64_t k = 0; k < count; ++k) frames.push_back(session.step(actions.select(1, known + k)));
  model->train(was_training);
  return at::stack(frames, 1);
}

}  // namespace genie::inference
