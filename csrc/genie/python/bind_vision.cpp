#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "genie/config/config.h"
#include "genie/models/attentive_classifier.h"
#include "genie/models/jepa.h"
#include "genie/models/predictor.h"
#include "genie/models/vision_transformer.h"
#include "genie/python/bindings.h"
#include "genie/python/module_handle.h"
#include "genie/training/jepa_masks.h"
#include "genie/training/safetensors.h"

namespace genie::python {
namespace {

namespace py = pybind11;
using namespace py::literals;
using namespace genie::models;
using Layers = std::optional<std::array<int64_t, 2>>;

// The classes of genie_cpp.vision carry the documentation; their defaults are there too.

nn::RoPEStackOptions stack_options(int64_t dim, int64_t depth, int64_t heads, double mlp_ratio, bool qkv_bias,
                                   std::optional<double> qk_scale, double drop, double drop_path,
                                   bool checkpointing, bool use_areas, int64_t spatial, int64_t temporal,
                                   const Layers& layers, double residual_scale) {
  nn::RoPEStackOptions stack{.dim = dim,
                             .depth = depth,
                             .heads = heads,
                             .mlp_ratio = mlp_ratio,
                             .qkv_bias = qkv_bias,
                             .qk_scale = qk_scale,
                             .drop = drop,
                             .drop_path = drop_path,
                             .checkpointing = checkpointing};
  if (use_areas) stack.areas = nn::AreaSplits{.spatial = spatial, .temporal = temporal};
  if (layers) {
    stack.first_area_layer = (*layers)[0];
    stack.end_area_layer = (*layers)[1];
  }
  stack.area_residual_scale = residual_scale;
  return stack;
}

void bind_vision_transformer(py::module_& m) {
  module_class<VisionTransformerImpl>(m, "VisionTransformer")
      .def(
          py::init([](int64_t patch_size, int64_t tubelet_size, int64_t in_chans, int64_t embed_dim,
                      int64_t depth, int64_t num_heads, double mlp_ratio, bool qkv_bias,
                      std::optional<double> qk_scale, double drop_rate, double drop_path_rate,
                      bool use_activation_checkpointing, bool use_area_attention, int64_t area_spatial_splits,
                      int64_t area_temporal_splits, const Layers& area_attention_layers,
                      double area_residual_scale, const std::vector<int64_t>& out_layers) {
            return std::make_shared<VisionTransformerImpl>(VisionTransformerOptions{
                .patch_size = patch_size,
                .tubelet_size = tubelet_size,
                .channels = in_chans,
                .blocks = stack_options(embed_dim, depth, num_heads, mlp_ratio, qkv_bias, qk_scale, drop_rate,
                                        drop_path_rate, use_activation_checkpointing, use_area_attention,
                                        area_spatial_splits, area_temporal_splits, area_attention_layers,
                                        area_residual_scale),
                .out_layers = out_layers});
          }),
          py::kw_only(), "patch_size"_a, "tubelet_size"_a, "in_chans"_a, "embed_dim"_a, "depth"_a,
          "num_heads"_a, "mlp_ratio"_a, "qkv_bias"_a, "qk_scale"_a, "drop_rate"_a, "drop_path_rate"_a,
          "use_activation_checkpointing"_a, "use_area_attention"_a, "area_spatial_splits"_a,
          "area_temporal_splits"_a, "area_attention_layers"_a, "area_residual_scale"_a, "out_layers"_a)
      .def("forward", &VisionTransformerImpl::forward, "video"_a, "masks"_a, NoGil())
      .def("features", &VisionTransformerImpl::features, "video"_a, "masks"_a, NoGil());
}

void bind_predictor(py::module_& m) {
  module_class<VisionPredictorImpl>(m, "VisionPredictor")
      .def(py::init([](const std::array<int64_t, 3>& grid, int64_t embed_dim, int64_t predictor_embed_dim,
                       int64_t depth, int64_t num_heads, double mlp_ratio, bool qkv_bias,
                       std::optional<double> qk_scale, double drop_rate, double drop_path_rate,
                       int64_t num_mask_tokens, bool use_activation_checkpointing, bool use_area_attention,
                       int64_t area_spatial_splits, int64_t area_temporal_splits,
                       const Layers& area_attention_layers, double area_residual_scale) {
             return std::make_shared<VisionPredictorImpl>(VisionPredictorOptions{
                 .grid = {.frames = grid[0], .height = grid[1], .width = grid[2]},
                 .embed_dim = embed_dim,
                 .blocks = stack_options(predictor_embed_dim, depth, num_heads, mlp_ratio, qkv_bias, qk_scale,
                                         drop_rate, drop_path_rate, use_activation_checkpointing,
                                         use_area_attention, area_spatial_splits, area_temporal_splits,
                                         area_attention_layers, area_residual_scale),
                 .num_mask_tokens = num_mask_tokens});
           }),
           py::kw_only(), "grid"_a, "embed_dim"_a, "predictor_embed_dim"_a, "depth"_a, "num_heads"_a,
           "mlp_ratio"_a, "qkv_bias"_a, "qk_scale"_a, "drop_rate"_a, "drop_path_rate"_a, "num_mask_tokens"_a,
           "use_activation_checkpointing"_a, "use_area_attention"_a, "area_spatial_splits"_a,
           "area_temporal_splits"_a, "area_attention_layers"_a, "area_residual_scale"_a)
      .def("forward", &VisionPredictorImpl::forward, "x"_a, "masks_x"_a, "masks_y"_a, "mask_index"_a,
           NoGil());
}

void bind_attentive_classifier(py::module_& m) {
  module_class<AttentiveClassifierImpl>(m, "AttentiveClassifier")
      .def(py::init([](int64_t embed_dim, int64_t num_heads, int64_t depth, double mlp_ratio, bool qkv_bias,
                       int64_t num_classes) {
             return std::make_shared<AttentiveClassifierImpl>(
                 AttentiveClassifierOptions{.embed_dim = embed_dim,
                                            .num_heads = num_heads,
                                            .depth = depth,
                                            .mlp_ratio = mlp_ratio,
                                            .qkv_bias = qkv_bias,
                                            .num_classes = num_classes});
           }),
           py::kw_only(), "embed_dim"_a, "num_heads"_a, "depth"_a, "mlp_ratio"_a, "qkv_bias"_a,
           "num_classes"_a)
      .def("forward", &AttentiveClassifierImpl::forward, "features"_a, NoGil());
}

}  // namespace

void bind_vision(py::module_& m) {
  bind_attentive_classifier(m);
  bind_vision_transformer(m);
  bind_predictor(m);
  m.def(
      "save_safetensors",
      [](const std::string& path, const std::map<std::string, at::Tensor>& tensors) {
        training::save_safetensors(path, training::TensorMap(tensors.begin(), tensors.end()));
      },
      "path"_a, "tensors"_a, NoGil(), "Writes tensors by name as a safetensors file.");
  m.def(
      "to_encoder_input", &to_encoder_input, "video"_a, NoGil(),
      "Video (B,T,3,H,W) in [0,1] as V-JEPA's encoders take it: (B,3,T,H,W), each colour less its mean over "
      "its deviation.");
  m.def(
      "draw_jepa_masks",
      [](const config::Config& config, const std::array<int64_t, 3>& grid, const std::vector<int64_t>& clips,
         uint64_t seed) {
        std::vector<std::pair<at::Tensor, at::Tensor>> masks;
        const nn::GridSize size{.frames = grid[0], .height = grid[1], .width = grid[2]};
        for (const auto& mask : training::draw_jepa_masks(config.jepa.masks, size, clips, seed, at::kCPU)) {
          masks.emplace_back(mask.seen, mask.hidden);
        }
        return masks;
      },
      "config"_a, "grid"_a, "clips"_a, "seed"_a = 0,
      "Phase jepa's masks of these clips: token ids (seen (B,K), hidden (B,P)), one pair a kind of block.");
}

}  // namespace genie::python
