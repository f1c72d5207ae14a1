#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "genie/training/device.h"
#include "genie/training/phase.h"
#include "genie/training/run.h"

namespace genie::training {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

int64_t parameters(const torch::nn::Module& module) {
  int64_t count = 0;
  for (const at::Tensor& parameter : module.parameters()) count += parameter.numel();
  return count;
}

/// Bytes that a forward pass keeps for backward, for `tokens` tokens. A layer keeps, in widths of the
/// residual stream: for each attention its input, the norm's output, 3 for q, k, v, 2 for the normalised q
/// and k and 1 for the output (head widths may differ from dim), and for the MLP its input, the norm's output
/// and the hidden layer before and after GELU.
double transformer_bytes(const config::TransformerConfig& t, double tokens, double bytes_per_value) {
  const double inner =
      static_cast<double>(t.head_dim > 0 ? t.head_dim * t.heads : t.dim) / static_cast<double>(t.dim);
  const double layer = 2 * (2 + 6 * inner) + 2 + 2 * t.mlp_ratio;
  const double width = static_cast<double>(t.dim) * bytes_per_value * tokens;
  const double depth = static_cast<double>(t.depth);
  return t.gradient_checkpointing ? width * (depth + layer) : width * layer * depth;
}

}  // namespace

std::string dry_run(const config::Config& config) {
  config::validate(config);
  const double program = peak_host_memory_gib();  // before there is a model
  models::Genie genie(config);
  std::string text;
  char line[256];
  int64_t total = 0;
  double largest = 0;
  const auto per_sample = [&](const config::PhaseConfig& phase) {
    const int64_t frames = phase.num_frames > 0 ? phase.num_frames : config.data.num_frames;
    return static_cast<double>(frames * phase.batch_size / phase.accumulation);
  };
  const double bytes = config.training.dtype == "float32" ? 4 : 2;
  const auto add = [&](const char* name, const torch::nn::Module& model, double activation) {
    const int64_t count = parameters(model);
    total += count;
    // Weight, gradient and AdamW's two moments, each float32.
    const double fixed = 16.0 * static_cast<double>(count);
    std::snprintf(
        line, sizeof(line),
        "%-14s %8.2f M parameters   %6.2f GiB for weights, gradients and AdamW + %6.2f GiB of activations\n",
        name, static_cast<double>(count) / 1e6, fixed / kGiB, activation / kGiB);
    largest = std::max(largest, (fixed + activation) / kGiB);
    text += line;
  };
  const double tokens = static_cast<double>(genie->tokenizer()->grid().count());
  const double patches = static_cast<double>(genie->latent_action()->grid().count());
  const auto& t = config.training;
  add("tokenizer", *genie->tokenizer(),
      transformer_bytes(config.tokenizer.encoder, tokens * per_sample(t.tokenizer), bytes) +
          transformer_bytes(config.tokenizer.decoder, tokens * per_sample(t.tokenizer), bytes));
  add("latent_action", *genie->latent_action(),
      transformer_bytes(config.latent_action.encoder, (patches + 1) * per_sample(t.latent_action), bytes) +
          transformer_bytes(config.latent_action.decoder, patches * per_sample(t.latent_action), bytes));
  const double masked = tokens * per_sample(t.dynamics) * config.dynamics.masked_frame_share *
                        (config.dynamics.min_mask_rate + config.dynamics.max_mask_rate) / 2;
  add("dynamics", *genie->dynamics(),
      transformer_bytes(config.dynamics.transformer, tokens * per_sample(t.dynamics), bytes) +
          masked * static_cast<double>(config.tokenizer.quantizer.num_codes) * 3 * 4);
  std::snprintf(line, sizeof(line), "%-14s %8.2f M parameters\n", "total", static_cast<double>(total) / 1e6);
  text += line;
  std::snprintf(line, sizeof(line), "%-14s %8.2f GiB with the program's own %.2f GiB%s\n", "peak",
                largest + program, program,
                config.training.device == "cpu" ? "" : "; on a GPU the models' part is the device's");
  return text + line;
}

}  // namespace genie::training
