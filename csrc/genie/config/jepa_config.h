#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "genie/config/fields.h"

namespace genie::config {

/// The video encoder that phase jepa trains.
struct JepaEncoderConfig {
  using IsSection = void;
  int64_t patch_size = 16;
  int64_t tubelet_size = 2;
  int64_t depth = 12;
  int64_t dim = 384;
  int64_t heads = 6;
  double mlp_ratio = 4;
  double drop_path = 0;
  bool gradient_checkpointing = false;
  bool use_area_attention = false;
  int64_t area_spatial_splits = 2;
  int64_t area_temporal_splits = 2;
  std::vector<int64_t> area_attention_layers = {};
  double area_residual_scale = 1;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("patch_size", s.patch_size, "pixels per side of a tubelet", between(1, 256));
    visit("tubelet_size", s.tubelet_size, "frames of a tubelet", between(1, 64));
    visit("depth", s.depth, "layers", between(1, 256));
    visit("dim", s.dim, "width of the residual stream", between(1, 65536));
    visit("heads", s.heads, "attention heads", between(1, 1024));
    visit("mlp_ratio", s.mlp_ratio, "hidden width of the MLP / dim", greater_than(0));
    visit("drop_path", s.drop_path, "stochastic depth of the last layer, growing linearly from 0",
          between(0, 0.99));
    visit("gradient_checkpointing", s.gradient_checkpointing,
          "recompute each layer in backward to save memory", {});
    visit("use_area_attention", s.use_area_attention,
          "layers area_attention_layers attend inside space-time areas only", {});
    visit("area_spatial_splits", s.area_spatial_splits, "areas along the rows of a frame", between(1, 1024));
    visit("area_temporal_splits", s.area_temporal_splits, "areas along the frames of a clip",
          between(1, 1024));
    visit("area_attention_layers", s.area_attention_layers,
          "the layers from start up to but without end; [] is the first three quarters", Interval{});
    visit("area_residual_scale", s.area_residual_scale,
          "factor of what area attention gives, before its output projection", {});
  }
};

/// What predicts the target encoder's outputs from the encoder's.
struct JepaPredictorConfig {
  using IsSection = void;
  int64_t depth = 6;
  int64_t dim = 192;
  int64_t heads = 6;
  double mlp_ratio = 4;
  bool use_area_attention = false;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("depth", s.depth, "layers", between(1, 256));
    visit("dim", s.dim, "width of the residual stream", between(1, 65536));
    visit("heads", s.heads, "attention heads", between(1, 1024));
    visit("mlp_ratio", s.mlp_ratio, "hidden width of the MLP / dim", greater_than(0));
    visit("use_area_attention", s.use_area_attention,
          "area attention in its first three quarters too, with the encoder's splits", {});
  }
};

/// Which tokens are hidden. There are up to two masks a clip, of many short and of few long blocks.
struct JepaMaskConfig {
  using IsSection = void;
  double hidden_share = 0.8;
  double short_scale = 0.15;
  double long_scale = 0.7;
  double temporal_scale = 1;
  double min_aspect = 0.75;
  double max_aspect = 1.5;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("hidden_share", s.hidden_share, "share of a clip's tokens that blocks hide", between(0.05, 0.95));
    visit("short_scale", s.short_scale, "share of a frame a short block covers; 0 leaves this mask out",
          between(0, 1));
    visit("long_scale", s.long_scale, "share of a frame a long block covers; 0 leaves this mask out",
          between(0, 1));
    visit("temporal_scale", s.temporal_scale, "share of the clip's length a block covers", between(0.01, 1));
    visit("min_aspect", s.min_aspect, "least height / width of a block", between(0.01, 100));
    visit("max_aspect", s.max_aspect, "greatest height / width of a block", between(0.01, 100));
  }
};

/// Masked latent prediction (V-JEPA 2, arXiv 2506.09985): phase jepa.
struct JepaConfig {
  using IsSection = void;
  JepaEncoderConfig encoder;
  JepaPredictorConfig predictor;
  JepaMaskConfig masks;
  std::string loss = "l1";
  double momentum = 0.998;
  double final_momentum = 1;
  double collapse_alarm = 0.1;
  std::string initial_weights;
  bool initial_strict = true;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("encoder", s.encoder, "video encoder; the target encoder is its moving average", {});
    visit("predictor", s.predictor, "from visible tokens' outputs to hidden ones'", {});
    visit("masks", s.masks, "which tokens are hidden", {});
    visit("loss", s.loss, "distance of prediction and target", one_of({"l1", "smooth_l1"}));
    visit("momentum", s.momentum, "share of itself the target encoder keeps in the first step",
          between(0, 1));
    visit("final_momentum", s.final_momentum, "the same in the last step, linear between", between(0, 1));
    visit("collapse_alarm", s.collapse_alarm,
          "warn when the standard deviation of the targets over tokens and clips falls below (they are "
          "normalised over channels, so that a healthy value is near 1)",
          between(0, 1));
    visit("initial_weights", s.initial_weights,
          "safetensors file to start from (encoder.*, predictor.*, target_encoder.*); '' starts at random",
          {});
    visit("initial_strict", s.initial_strict,
          "false passes over weights that are missing or unexpected, and names them", {});
  }
};

}  // namespace genie::config
