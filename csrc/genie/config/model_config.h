#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "genie/config/fields.h"

namespace genie::config {

/// An ST-transformer stack (semantics: space attention, time attention, MLP in each layer).
struct TransformerConfig {
  using IsSection = void;
  int64_t depth = 8;
  int64_t dim = 512;
  int64_t heads = 8;
  int64_t head_dim = 0;
  double mlp_ratio = 4;
  double dropout = 0;
  double attention_dropout = 0;
  double drop_path = 0;
  bool gradient_checkpointing = false;
  std::string spatial_attention = "st";
  int64_t num_registers = 4;
  bool use_area_attention = false;
  int64_t area_spatial_splits = 2;
  int64_t area_temporal_splits = 2;
  std::vector<int64_t> area_attention_layers = {};
  double area_residual_scale = 1;
  std::string temporal_position = "learned";

  bool rotary_time() const { return temporal_position == "rotary"; }

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("depth", s.depth, "layers", between(0, 256));
    visit("dim", s.dim, "width of the residual stream", between(1, 65536));
    visit("heads", s.heads, "attention heads", between(1, 1024));
    visit("head_dim", s.head_dim, "width of a head's queries and keys; 0 is dim / heads", between(0, 4096));
    visit("mlp_ratio", s.mlp_ratio, "hidden width of the MLP / dim", greater_than(0));
    visit("dropout", s.dropout, "rate after projections and inside the MLP", between(0, 0.99));
    visit("attention_dropout", s.attention_dropout, "rate on attention weights", between(0, 0.99));
    visit("drop_path", s.drop_path, "stochastic depth of the last layer, growing linearly from 0",
          between(0, 0.99));
    visit("gradient_checkpointing", s.gradient_checkpointing,
          "recompute each layer in backward to save memory", {});
    visit("spatial_attention", s.spatial_attention,
          "st: attention of ST-ViViT; vit5: register-aware 2-D rotary attention, with a CLS token and "
          "registers "
          "added to each frame",
          one_of({"st", "vit5"}));
    visit("num_registers", s.num_registers, "registers a frame with spatial_attention: vit5; a square number",
          between(0, 256));
    visit("use_area_attention", s.use_area_attention,
          "in area_attention_layers one causal space-time attention inside areas takes the place of the "
          "spatial and the temporal one",
          {});
    visit("area_spatial_splits", s.area_spatial_splits, "areas along the rows of a frame", between(1, 1024));
    visit("area_temporal_splits", s.area_temporal_splits, "areas along the frames of a clip",
          between(1, 1024));
    visit("area_attention_layers", s.area_attention_layers,
          "the layers from start up to but without end; [] is the first three quarters", Interval{});
    visit("area_residual_scale", s.area_residual_scale,
          "factor of what area attention gives, before its output projection", {});
    visit("temporal_position", s.temporal_position,
          "learned: a table of data.num_frames frames; rotary: temporal attention turns with the frame and "
          "sees "
          "the last data.num_frames frames, so that a session never computes a frame again",
          one_of({"learned", "rotary"}));
  }
};

/// A vector quantizer's codebook and how it learns.
struct QuantizerConfig {
  using IsSection = void;
  int64_t num_codes = 1024;
  int64_t code_dim = 32;
  std::string update = "ema";
  double ema_decay = 0.99;
  double commitment_weight = 1;
  double codebook_weight = 1;
  bool kmeans_init = true;
  int64_t dead_code_steps = 100;
  double usage_alarm = 0.2;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("num_codes", s.num_codes, "entries of the codebook", between(2, 65536));
    visit("code_dim", s.code_dim, "width of an entry", between(1, 4096));
    visit("update", s.update, "how entries follow the encodings: moving averages or the codebook loss",
          one_of({"ema", "loss"}));
    visit("ema_decay", s.ema_decay, "decay a step of the moving averages", between(0, 0.99999));
    visit("commitment_weight", s.commitment_weight, "weight of the loss that ties encodings to their entry",
          at_least(0));
    visit("codebook_weight", s.codebook_weight, "weight of the codebook loss (update: loss)", at_least(0));
    visit("kmeans_init", s.kmeans_init, "start from k-means of the first batches' encodings", {});
    visit("dead_code_steps", s.dead_code_steps,
          "an entry unused for so many steps is reset to a live encoding; 0 never", at_least(0));
    visit("usage_alarm", s.usage_alarm, "warn when the share of entries in use falls below", between(0, 1));
  }
};

/// The video tokenizer: causal ST-ViViT encoder, quantizer, causal ST-ViViT decoder.
struct TokenizerConfig {
  using IsSection = void;
  int64_t patch_size = 4;
  std::string initialization = "pca_kmeans";
  std::string loss = "sum_of_squares";
  QuantizerConfig quantizer;
  TransformerConfig encoder{.depth = 6, .dim = 384, .heads = 6};
  TransformerConfig decoder{.depth = 10, .dim = 512, .heads = 8};

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("patch_size", s.patch_size, "pixels per side of a patch; one token a patch", between(1, 256));
    visit("initialization", s.initialization,
          "pca_kmeans: a linear path fitted to the data (PCA, k-means) beside transformers that start at "
          "zero; random: none",
          one_of({"pca_kmeans", "random"}));
    visit("loss", s.loss, "reconstruction error: summed over a patch's pixels, or their mean",
          one_of({"sum_of_squares", "mse"}));
    visit("quantizer", s.quantizer, "codebook of the frame tokens", {});
    visit("encoder", s.encoder, "frames to encodings", {});
    visit("decoder", s.decoder, "quantized encodings to frames", {});
  }
};

/// The latent action model: which of a few discrete actions led from each frame to the next.
struct LatentActionConfig {
  using IsSection = void;
  int64_t patch_size = 16;
  std::string loss = "mse";
  double history_mask = 0;
  double change_weight = 0;
  QuantizerConfig quantizer{
      .num_codes = 8, .code_dim = 32, .ema_decay = 0.99, .commitment_weight = 0.25, .dead_code_steps = 50};
  TransformerConfig encoder{.depth = 8, .dim = 512, .heads = 8};
  TransformerConfig decoder{.depth = 8, .dim = 512, .heads = 8};

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("patch_size", s.patch_size, "pixels per side of a patch", between(1, 256));
    visit("loss", s.loss,
          "reconstruction loss of the next frame: mean squared error, or cross-entropy of sigmoids",
          one_of({"mse", "sigmoid_cross_entropy"}));
    visit("history_mask", s.history_mask,
          "share of the decoder's past patches that is hidden, so that the action has to carry the change",
          between(0, 1));
    visit("change_weight", s.change_weight,
          "further weight of pixels that change between frames, in units of the mean change; 0 weighs all "
          "alike",
          at_least(0));
    visit("quantizer", s.quantizer, "codebook of the actions", {});
    visit("encoder", s.encoder, "frames up to t+1 to the action between t and t+1", {});
    visit("decoder", s.decoder, "frames up to t and the action to frame t+1", {});
  }
};

/// The MaskGIT dynamics model: tokens of the next frame from past tokens and an action.
struct DynamicsConfig {
  using IsSection = void;
  std::string action_conditioning = "additive";
  int64_t cross_attention_every = 4;
  double min_mask_rate = 0.5;
  double max_mask_rate = 1.0;
  double masked_frame_share = 1.0;
  double context_corruption = 0;
  double label_smoothing = 0;
  std::string token_embedding = "codebook";
  bool previous_frame_input = false;
  TransformerConfig transformer{.depth = 12, .dim = 768, .heads = 12, .head_dim = 128};

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit(
        "action_conditioning", s.action_conditioning,
        "additive: action embeddings are added to a frame's tokens; prepend: they are a token of the frame; "
        "cross_attention: gated blocks attend to them",
        one_of({"additive", "prepend", "cross_attention"}));
    visit("cross_attention_every", s.cross_attention_every, "layers between two cross-attention blocks",
          between(1, 256));
    visit("min_mask_rate", s.min_mask_rate, "least share of tokens masked in training, drawn per sample",
          between(0, 1));
    visit("max_mask_rate", s.max_mask_rate, "greatest share of tokens masked in training", between(0, 1));
    visit("masked_frame_share", s.masked_frame_share,
          "probability that a later frame is masked at all in training; below 1, masked frames follow clean "
          "ones, as they do in "
          "generation",
          Range{0, 1, true});
    visit("context_corruption", s.context_corruption,
          "up to this share of the visible tokens is replaced by random ones in training (robust rollouts)",
          between(0, 1));
    visit("label_smoothing", s.label_smoothing, "of the cross-entropy", between(0, 0.5));
    visit("token_embedding", s.token_embedding,
          "codebook: embeddings and output layer start from the tokenizer's codebook; random: they don't",
          one_of({"codebook", "random"}));
    visit("previous_frame_input", s.previous_frame_input,
          "each token's place is also shown what stood there one frame before, so that copying need not be "
          "learned",
          {});
    visit("transformer", s.transformer, "the ST-transformer", {});
  }
};

}  // namespace genie::config
