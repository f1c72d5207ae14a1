#include "genie/inference/maskgit.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <tuple>
#include <vector>

#include "genie/core/random.h"

namespace genie::inference {
namespace {

constexpr double kNegativeInfinity = -std::numeric_limits<double>::infinity();

/// Logits with those outside the k likeliest, or outside the likeliest that hold probability p, at minus
/// infinity.
at::Tensor restrict_to_likely(at::Tensor logits, int64_t top_k, double top_p) {
  if (top_k > 0 && top_k < logits.size(-1)) {
    const at::Tensor least = std::get<0>(logits.topk(top_k, -1)).narrow(-1, top_k - 1, 1);
    logits = logits.masked_fill(logits < least, kNegativeInfinity);
  }
  if (top_p < 1) {
    const auto [sorted, order] = logits.sort(-1, /*descending=*/true);
    const at::Tensor probability = sorted.softmax(-1);
    // The token that crosses p stays, so at least one always does.
    const at::Tensor drop = (probability.cumsum(-1) - probability) >= top_p;
    logits = logits.masked_fill(at::zeros_like(drop).scatter(-1, order, drop), kNegativeInfinity);
  }
  return logits;
}

at::Tensor uniform(at::IntArrayRef shape, uint64_t seed, const at::Tensor& like) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::rand(shape, generator, at::TensorOptions().dtype(at::kFloat)).to(like.device());
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

Refined refine(const at::Tensor& logits_BNK, const at::Tensor& tokens, const at::Tensor& mask,
               int64_t keep_masked, const config::InferenceConfig& config, uint64_t seed) {
  at::Tensor logits = logits_BNK.to(at::kFloat);
  at::Tensor sampled;
  if (config.temperature == 0) {
    sampled = logits.argmax(-1);
  } else {
    logits = restrict_to_likely(logits / config.temperature, config.top_k, config.top_p);
    // Gumbel's trick: the argmax of logits plus this noise is a sample of their softmax.
    const at::Tensor noise = uniform(logits.sizes(), mix_seed(seed, 0), logits)
                                 .clamp_min_(1e-20)
                                 .log_()
                                 .neg_()
                                 .clamp_min_(1e-20)
                                 .log_()
                                 .neg_();
    sampled = (logits + noise).argmax(-1);
  }
  Refined refined;
  refined.tokens = at::where(mask, sampled, tokens);
  if (keep_masked == 0) {
    refined.mask = at::zeros_like(mask);
    return refined;
  }
  at::Tensor confidence = config.unmasking == "random"
                              ? uniform(tokens.sizes(), mix_seed(seed, 1), logits)
                              : logits.log_softmax(-1).gather(-1, sampled.unsqueeze(-1)).squeeze(-1);
  // Tokens kept earlier stay kept.
  confidence = confidence.masked_fill(~mask, std::numeric_limits<double>::infinity());
  const at::Tensor least = std::get<1>(confidence.topk(keep_masked, -1, /*largest=*/false));
  refined.mask = at::zeros_like(mask).scatter(-1, least, true).logical_and_(mask);
  return refined;
}

at::Tensor generate(models::DynamicsModel& model, const at::Tensor& prompt, const at::Tensor& actions,
                    const config::InferenceConfig& config, uint64_t seed) {
  TORCH_CHECK_VALUE(prompt.dim() == 3 && prompt.size(1) >= 1 && prompt.size(2) == model->tokens_per_frame(),
                    "generate: expected prompt tokens (B,T0,", model->tokens_per_frame(),
                    ") with T0 >= 1, got ", prompt.sizes());
  const int64_t batch = prompt.size(0), tokens = prompt.size(2), window = model->num_frames();
  const int64_t count = actions.dim() == 2 ? actions.size(1) - (prompt.size(1) - 1) : -1;
  TORCH_CHECK_VALUE(actions.dim() == 2 && actions.size(0) == batch && count >= 0,
                    "generate: expected actions (", batch, ",", prompt.size(1) - 1, " + new frames), got ",
                    actions.sizes());
  model->check_tokens(prompt);
  model->check_actions(actions);
  at::NoGradGuard no_grad;
  const bool was_training = model->is_training();
  model->eval();

  // leading[:, t] is the action that led to frame t; the first frame of the window counts as led to by none.
  const at::Tensor none = at::full({batch, 1}, model->num_actions(), actions.options());
  std::vector<at::Tensor> frames = prompt.unbind(1);
  nn::TemporalCache cache = model->make_cache();
  const at::Tensor all_masked = at::ones({batch, 1, tokens}, prompt.options().dtype(at::kBool));
  const at::Tensor unmasked = at::zeros_like(all_masked);

  for (int64_t k = 0; k < count; ++k) {
    const int64_t current = static_cast<int64_t>(frames.size());
    const int64_t past = std::min(current, window - 1);
    if (cache.length() != past || past == window - 1) {
      cache.clear();
      const at::Tensor context = at::stack(std::vector<at::Tensor>(frames.end() - past, frames.end()), 1);
      const at::Tensor leading = at::cat({none, actions.narrow(1, current - past, past - 1)}, 1);
      model->features_cached(context, leading, unmasked.expand({batch, past, tokens}), cache);
      cache.commit(past);
    }
    const at::Tensor leading = actions.narrow(1, current - 1, 1);
    at::Tensor frame = at::zeros({batch, tokens}, prompt.options());
    at::Tensor mask = all_masked.select(1, 0);
    for (int64_t step = 1; step <= config.steps; ++step) {
      const at::Tensor features =
          model->features_cached(frame.unsqueeze(1), leading, mask.unsqueeze(1), cache);
      const Refined refined = refine(model->logits(features.select(1, 0)), frame, mask,
                                     num_masked(config.schedule, step, config.steps, tokens), config,
                                     mix_seed(seed, Stream::sampling, current, step));
      frame = refined.tokens;
      mask = refined.mask;
    }
    frames.push_back(frame);
    if (current < window - 1) {
      // The frame's final tokens, unmasked, become part of the past.
      model->features_cached(frame.unsqueeze(1), leading, unmasked, cache);
      cache.commit(1);
    }
  }
  model->train(was_training);
  if (count == 0) return prompt.narrow(1, 0, 0);
  return at::stack(std::vector<at::Tensor>(frames.end() - count, frames.end()), 1);
}

}  // namespace genie::inference
