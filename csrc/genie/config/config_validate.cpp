#include <cmath>

#include "genie/config/config.h"
#include "genie/config/entry.h"
#include "genie/config/text.h"
#include "genie/core/error.h"

namespace genie::config {
namespace {

void check_transformer(const TransformerConfig& c, const std::string& key) {
  check(c.head_dim > 0 || c.dim % c.heads == 0, key, ".dim = ", c.dim, " is not divisible by ", key,
        ".heads = ", c.heads, "; change one of them or set ", key, ".head_dim");
  if (c.spatial_attention == "vit5") {
    const int64_t head_dim = c.head_dim > 0 ? c.head_dim : c.dim / c.heads;
    check(head_dim % 4 == 0, key, ".spatial_attention = vit5 turns channels in fours, and a head has ",
          head_dim, "; choose ", key, ".dim, .heads or .head_dim so that 4 divides it");
    const auto side = static_cast<int64_t>(std::llround(std::sqrt(static_cast<double>(c.num_registers))));
    check(side * side == c.num_registers, key, ".num_registers = ", c.num_registers,
          " is no square number; the registers' positions form a square grid");
  }
  if (c.rotary_time()) {
    const int64_t head_dim = c.head_dim > 0 ? c.head_dim : c.dim / c.heads;
    check(head_dim % 4 == 0, key, ".temporal_position = rotary turns channels in fours, and a head has ",
          head_dim, "; choose ", key, ".dim, .heads or .head_dim so that 4 divides it");
  }
  check(c.area_attention_layers.empty() || c.area_attention_layers[1] <= c.depth, key,
        ".area_attention_layers ends at ", c.area_attention_layers.empty() ? 0 : c.area_attention_layers[1],
        ", but there are ", key, ".depth = ", c.depth, " layers");
}

void check_quantizer(const QuantizerConfig& c, const std::string& key) {
  check(c.update != "loss" || c.codebook_weight > 0, key, ".update = loss with ", key,
        ".codebook_weight = 0 never moves the codebook; raise the weight or use update: ema");
}

void check_patch(int64_t patch_size, const std::string& key, const DataConfig& data) {
  check(patch_size <= data.height && patch_size <= data.width, key, ".patch_size = ", patch_size,
        " does not fit into a frame of data.height = ", data.height, " and data.width = ", data.width);
}

void check_phase(const PhaseConfig& c, const std::string& key) {
  check(c.final_learning_rate <= c.learning_rate, key,
        ".final_learning_rate = ", number_text(c.final_learning_rate), " is above ", key,
        ".learning_rate = ", number_text(c.learning_rate));
  check(c.batch_size % c.accumulation == 0, key, ".batch_size = ", c.batch_size, " is not divisible by ", key,
        ".accumulation = ", c.accumulation, ", the parts it is computed in");
  check(c.num_frames != 1, key, ".num_frames = 1: a clip needs at least 2 frames; 0 takes data.num_frames");
  if (c.steps == 0) return;  // the phase is skipped
  check(c.warmup_steps <= c.steps, key, ".warmup_steps = ", c.warmup_steps, " is above ", key,
        ".steps = ", c.steps, ": the learning rate would never be reached");
  const double falling = c.decay_fraction * static_cast<double>(c.steps);
  check(c.schedule != "wsd" || static_cast<double>(c.warmup_steps) + falling <= static_cast<double>(c.steps),
        key, ".warmup_steps = ", c.warmup_steps, " and ", key,
        ".decay_fraction = ", number_text(c.decay_fraction), " of ", key, ".steps = ", c.steps,
        " overlap; shorten one of them");
}

void check_data(const DataConfig& c) {
  check(c.fps == 0 || c.stride == 1, "data.fps = ", number_text(c.fps), " and data.stride = ", c.stride,
        " both say which frames are used; set one of them");
  check(c.path.empty() || c.path != c.validation_path,
        "data.validation_path is data.path = ", yaml_string(c.path),
        "; set it to another file, or to '' to hold out data.validation_fraction");
}

void check_dynamics(const DynamicsConfig& c) {
  check(c.min_mask_rate <= c.max_mask_rate, "dynamics.min_mask_rate = ", number_text(c.min_mask_rate),
        " is above dynamics.max_mask_rate = ", number_text(c.max_mask_rate));
  check(c.max_mask_rate > 0, "dynamics.max_mask_rate = 0 masks nothing, so there is nothing to learn from");
}

void check_token_cache(const Config& c) {
  if (!c.training.token_cache) return;
  check(c.data.random_crop == 0 && !c.data.horizontal_flip,
        "training.token_cache keeps one set of tokens a clip, and data.random_crop and data.horizontal_flip "
        "show a clip differently each time; turn these off or training.token_cache");
  check(c.training.cotrain.steps == 0,
        "training.token_cache has no effect with training.cotrain.steps > 0, where the latent actions change "
        "from step to step; turn one of them off");
}

void check_jepa(const JepaConfig& c) {
  const auto divides = [](int64_t dim, int64_t heads, const char* key) {
    check(dim % heads == 0, key, ".dim = ", dim, " is not divisible by ", key, ".heads = ", heads);
  };
  divides(c.encoder.dim, c.encoder.heads, "jepa.encoder");
  divides(c.predictor.dim, c.predictor.heads, "jepa.predictor");
  const auto& layers = c.encoder.area_attention_layers;
  check(layers.empty() || layers[1] <= c.encoder.depth, "jepa.encoder.area_attention_layers ends at ",
        layers.empty() ? 0 : layers[1], ", but there are jepa.encoder.depth = ", c.encoder.depth, " layers");
  check(c.masks.short_scale > 0 || c.masks.long_scale > 0,
        "jepa.masks.short_scale and jepa.masks.long_scale are both 0: nothing would be hidden");
  check(c.masks.min_aspect <= c.masks.max_aspect, "jepa.masks.min_aspect = ", number_text(c.masks.min_aspect),
        " is above jepa.masks.max_aspect = ", number_text(c.masks.max_aspect));
}

}  // namespace

void validate(const Config& config) {
  Config copy = config;  // entries point into a configuration that may be changed
  for (const Entry& entry : list_entries(copy)) {
    const std::string problem = problem_with(entry);
    check(problem.empty(), entry.key, ": ", problem);
  }
  check_data(config.data);
  check_patch(config.tokenizer.patch_size, "tokenizer", config.data);
  check_patch(config.latent_action.patch_size, "latent_action", config.data);
  check_quantizer(config.tokenizer.quantizer, "tokenizer.quantizer");
  check_quantizer(config.latent_action.quantizer, "latent_action.quantizer");
  check_transformer(config.tokenizer.encoder, "tokenizer.encoder");
  check_transformer(config.tokenizer.decoder, "tokenizer.decoder");
  check_transformer(config.latent_action.encoder, "latent_action.encoder");
  check_transformer(config.latent_action.decoder, "latent_action.decoder");
  check_transformer(config.dynamics.transformer, "dynamics.transformer");
  check_dynamics(config.dynamics);
  check(config.inference.top_k <= config.tokenizer.quantizer.num_codes,
        "inference.top_k = ", config.inference.top_k,
        " is above tokenizer.quantizer.num_codes = ", config.tokenizer.quantizer.num_codes,
        "; 0 samples among all codes");
  check_phase(config.training.tokenizer, "training.tokenizer");
  check_phase(config.training.latent_action, "training.latent_action");
  check_phase(config.training.dynamics, "training.dynamics");
  check_phase(config.training.cotrain, "training.cotrain");
  check_token_cache(config);
  check_phase(config.training.jepa, "training.jepa");
  check_jepa(config.jepa);
}

}  // namespace genie::config
