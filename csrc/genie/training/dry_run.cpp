#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <vector>

#include "genie/data/video_file.h"
#include "genie/training/device.h"
#include "genie/training/optimizer.h"
#include "genie/training/phase.h"
#include "genie/training/run.h"

namespace genie::training {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

double parameters(const torch::nn::Module& module) {
  double count = 0;
  for (const at::Tensor& parameter : module.parameters()) count += static_cast<double>(parameter.numel());
  return count;
}

/// GiB that the program takes besides its models and data: what is measured once a step of training has
/// brought in the libraries' code and buffers.
double program_gib() {
  config::Config config;
  const config::TransformerConfig stack{.depth = 1, .dim = 16, .heads = 2};
  config.tokenizer.quantizer.num_codes = 16;
  config.data.num_frames = 2;
  config.data.height = config.data.width = 16;
  config.tokenizer.encoder = config.tokenizer.decoder = stack;
  config.latent_action.encoder = config.latent_action.decoder = config.dynamics.transformer = stack;
  config.dynamics.transformer.head_dim = 8;
  models::Genie genie(config);
  const std::unique_ptr<Phase> phase = make_phase("tokenizer", genie);
  const Part part{at::rand({8, 2, 3, 16, 16}), {0, 1, 2, 3, 4, 5, 6, 7}};
  phase->initialize(part.video);
  phase->model().train();
  AdamW optimizer(phase->model(), phase->settings());
  const TensorMap inputs = phase->inputs(part);
  torch::autograd::backward({phase->loss(inputs, phase->totals(inputs)).loss}, {});
  optimizer.clip_gradients(1);
  optimizer.step(1e-4);
  return peak_host_memory_gib();
}

struct Tokens {
  double count = 0, per_frame = 0, frames = 0;  ///< frames of a clip
};

/// Bytes that a forward pass keeps for backward. A layer keeps, in widths of the residual stream: for each of
/// its two attentions the input, the norm's output, q, k and v and the attention's output (head widths may
/// differ from dim), the turned or normalised q and k too where the fused attention does not do that itself;
/// for the MLP its input, the norm's output and the hidden layer before and after GELU. The CPU's ops for
/// whole branches compute what the norms and GELU gave again. Dropout keeps what it made, and in attention
/// the weights. The inputs, the residual stream, stay float32 under autocast.
double transformer_bytes(const config::TransformerConfig& t, const Tokens& tokens, bool on_cpu,
                         double bytes_per_value) {
  const double dim = static_cast<double>(t.dim), heads = static_cast<double>(t.heads);
  const double inner = (t.head_dim > 0 ? static_cast<double>(t.head_dim) * heads : dim) / dim;
  const bool fused_attention =
      t.spatial_attention == "st" && !t.use_area_attention && !t.rotary_time() && t.attention_dropout == 0;
  const bool fused_branches = fused_attention && on_cpu && t.dropout == 0 && t.drop_path == 0;
  const double stream = 4 / bytes_per_value, inputs = 3 * stream;
  double layer =
      inputs + (fused_branches ? 2 * 4 * inner + t.mlp_ratio
                               : 2 * (1 + (fused_attention ? 4 : 6) * inner) + 1 + 2 * t.mlp_ratio);
  if (t.dropout > 0) layer += 2 * (3 + t.mlp_ratio);
  if (t.attention_dropout > 0) layer += 4 * heads * (tokens.per_frame + tokens.frames) / dim;
  const double width = dim * bytes_per_value * tokens.count;
  const double depth = static_cast<double>(t.depth);
  const double backward = 2 * std::max(t.mlp_ratio, 3 * inner);  // gradients on their way through a layer
  return width * (t.gradient_checkpointing ? stream * depth + layer + backward : layer * depth + backward);
}

/// What a phase holds at once, in bytes.
struct PhaseBytes {
  double weights = 0;      ///< of all models
  double optimizer = 0;    ///< moments, and gradients as far as they stand beside the activations
  double checkpoint = 0;   ///< the copy that is written while training goes on; of the host
  double activations = 0;  ///< and video
  double loader = 0;       ///< of the host
};

class Estimate {
 public:
  Estimate(const config::Config& config, models::Genie& genie, bool on_cpu)
      : config_(config), genie_(genie), on_cpu_(on_cpu) {}

  PhaseBytes of(const std::string& phase, const std::vector<const torch::nn::Module*>& trained) const {
    const config::PhaseConfig& settings = settings_of_phase(config_.training, phase);
    double count = 0;
    for (const auto* module : trained) count += parameters(*module);
    const double frames =
        static_cast<double>(settings.num_frames > 0 ? settings.num_frames : config_.data.num_frames);
    const double batch = frames * static_cast<double>(settings.batch_size);
    const double part = batch / static_cast<double>(settings.accumulation);
    PhaseBytes bytes;
    // Beside the weights themselves the narrow ones that are multiplied.
    bytes.weights = 4 * parameters(*genie_) + (config_.training.dtype == "float32" ? 0 : 2 * count);
    bytes.activations = phase == "cotrain"
                            ? activations("latent_action", part) + activations("dynamics", part)
                            : activations(phase, part);
    // In a step's only backward, gradients come as activations go.
    const double gradients =
        settings.accumulation > 1 ? 4 * count : std::max(0.0, 4 * count - bytes.activations);
    bytes.optimizer = 8 * count + gradients;
    bytes.checkpoint = 12 * count;
    const double frame = 3.0 * static_cast<double>(config_.data.height * config_.data.width);
    bytes.activations += 4 * frame * batch;
    bytes.loader = frame * batch * static_cast<double>(config_.data.prefetch + config_.data.num_workers) +
                   cached_chunks();
    return bytes;
  }

 private:
  double activations(const std::string& phase, double frames) const {
    const double bytes = config_.training.dtype == "float32" ? 4 : 2;
    const auto in_frames = [&](int64_t count) {
      return Tokens{static_cast<double>(count) * frames, static_cast<double>(count),
                    static_cast<double>(config_.data.num_frames)};
    };
    const int64_t patch_count = genie_->latent_action()->grid().count();
    const Tokens tokens = in_frames(genie_->tokenizer_grid().count()), patches = in_frames(patch_count);
    // Patches, their reconstruction, and what the loss makes of them.
    constexpr double kCopies = 6 * 4;
    if (phase == "tokenizer") {
      return transformer_bytes(config_.tokenizer.encoder, tokens, on_cpu_, bytes) +
             transformer_bytes(config_.tokenizer.decoder, tokens, on_cpu_, bytes) +
             kCopies * tokens.count * static_cast<double>(genie_->tokenizer_grid().values());
    }
    if (phase == "latent_action") {
      return transformer_bytes(config_.latent_action.encoder, in_frames(patch_count + 1), on_cpu_, bytes) +
             transformer_bytes(config_.latent_action.decoder, patches, on_cpu_, bytes) +
             kCopies * patches.count * static_cast<double>(genie_->latent_action()->grid().values());
    }
    const config::DynamicsConfig& d = config_.dynamics;
    const double masked = tokens.count * d.masked_frame_share * (d.min_mask_rate + d.max_mask_rate) / 2;
    // Logits, their log-softmax and gradient.
    return transformer_bytes(d.transformer, tokens, on_cpu_, bytes) +
           masked * static_cast<double>(config_.tokenizer.quantizer.num_codes) * 3 * 4;
  }

  /// The reader keeps up to 64 MiB of decoded frames.
  double cached_chunks() const {
    constexpr double kMost = 64.0 * 1024 * 1024;
    if (config_.data.path.empty()) return kMost;
    const data::VideoFile file(config_.data.path);
    return std::min(kMost, 3.0 * static_cast<double>(file.num_frames() * file.height() * file.width()));
  }

  const config::Config& config_;
  models::Genie& genie_;
  bool on_cpu_;
};

}  // namespace

std::string dry_run(const config::Config& config) {
  config::validate(config);
  const bool on_gpu = config.training.device != "cpu" && at::hasCUDA();
  const double program = program_gib();
  models::Genie genie(config);
  const Estimate estimate(config, genie, /*on_cpu=*/!on_gpu), of_gpu(config, genie, /*on_cpu=*/false);
  const std::map<std::string, const torch::nn::Module*> models = {
      {"tokenizer", genie->tokenizer().get()},
      {"latent_action", genie->latent_action().get()},
      {"dynamics", genie->dynamics().get()}};
  std::string text;
  char line[320];
  for (const auto& name : {"tokenizer", "latent_action", "dynamics"}) {
    std::snprintf(line, sizeof line, "%-14s %8.2f M parameters\n", name, parameters(*models.at(name)) / 1e6);
    text += line;
  }
  std::snprintf(line, sizeof line, "%-14s %8.2f M parameters\n\n", "total", parameters(*genie) / 1e6);
  text += line;
  double host = 0, gpu = 0;
  for (const std::string& phase : phase_names(config)) {
    std::vector<const torch::nn::Module*> trained;
    for (const std::string& name : models_of_phase(phase)) trained.push_back(models.at(name));
    const PhaseBytes bytes = estimate.of(phase, trained);
    const double model = (bytes.weights + bytes.optimizer + bytes.activations) / kGiB;
    const double beside = program + (bytes.checkpoint + bytes.loader) / kGiB;
    std::snprintf(
        line, sizeof line,
        "phase %-14s %6.2f GiB: weights %.2f, AdamW and gradients %.2f, activations and video %.2f, "
        "loader and checkpoint %.2f, program %.2f\n",
        phase.c_str(), model + beside, bytes.weights / kGiB, bytes.optimizer / kGiB, bytes.activations / kGiB,
        beside - program, program);
    text += line;
    host = std::max(host, on_gpu ? beside : model + beside);
    const PhaseBytes there = of_gpu.of(phase, trained);
    gpu = std::max(gpu, (there.weights + there.optimizer + there.activations) / kGiB);
  }
  if (on_gpu) {
    std::snprintf(line, sizeof line, "peak memory %.2f GiB, and %.2f GiB on the GPU\n", host, gpu);
  } else if (config.training.device == "cpu") {
    std::snprintf(line, sizeof line, "peak memory %.2f GiB\n", host);
  } else {
    std::snprintf(line, sizeof line, "peak memory %.2f GiB; with a GPU, %.2f GiB of it there\n", host, gpu);
  }
  return text + line;
}

}  // namespace genie::training
