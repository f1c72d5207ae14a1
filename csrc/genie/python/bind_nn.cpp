#include "genie/config/model_config.h"
#include "genie/nn/area_block.h"
#include "genie/nn/cross_attention.h"
#include "genie/nn/mlp.h"
#include "genie/nn/patches.h"
#include "genie/nn/positional_embedding.h"
#include "genie/nn/rms_norm.h"
#include "genie/nn/rope_attention.h"
#include "genie/nn/st_transformer.h"
#include "genie/nn/vector_quantizer.h"
#include "genie/nn/vit5_attention.h"
#include "genie/python/bindings.h"
#include "genie/python/module_handle.h"

namespace genie::python {
namespace {

namespace py = pybind11;
using namespace py::literals;
using OptionalTensor = std::optional<at::Tensor>;

// The classes of genie_cpp.nn carry the documentation; their defaults are there too.

template <class Impl>
ModuleClass<Impl> bind_st_attention(py::module_& m, const char* name) {
  return module_class<Impl>(m, name).def(
      py::init([](int64_t dim, int64_t num_heads, bool qkv_bias, std::optional<double> qk_scale,
                  double attn_drop, double proj_drop, int64_t head_dim) {
        return std::make_shared<Impl>(nn::STAttentionOptions{.dim = dim,
                                                             .num_heads = num_heads,
                                                             .qkv_bias = qkv_bias,
                                                             .qk_scale = qk_scale,
                                                             .attn_drop = attn_drop,
                                                             .proj_drop = proj_drop,
                                                             .head_dim = head_dim});
      }),
      py::kw_only(), "dim"_a, "num_heads"_a, "qkv_bias"_a, "qk_scale"_a, "attn_drop"_a, "proj_drop"_a,
      "head_dim"_a);
}

void bind_st_block(py::module_& m) {
  using nn::STTransformerBlockImpl;
  module_class<STTransformerBlockImpl>(m, "STTransformerBlock")
      .def(py::init([](int64_t dim, int64_t num_heads, double mlp_ratio, bool qkv_bias,
                       std::optional<double> qk_scale, double drop, double attn_drop, double drop_path,
                       const std::string& act_layer, const std::string& norm_layer, int64_t head_dim) {
             return std::make_shared<STTransformerBlockImpl>(
                 nn::STBlockOptions{.attention = {.dim = dim,
                                                  .num_heads = num_heads,
                                                  .qkv_bias = qkv_bias,
                                                  .qk_scale = qk_scale,
                                                  .attn_drop = attn_drop,
                                                  .proj_drop = drop,
                                                  .head_dim = head_dim},
                                    .mlp_ratio = mlp_ratio,
                                    .drop = drop,
                                    .drop_path = drop_path,
                                    .act_layer = act_layer,
                                    .norm_layer = norm_layer});
           }),
           py::kw_only(), "dim"_a, "num_heads"_a, "mlp_ratio"_a, "qkv_bias"_a, "qk_scale"_a, "drop"_a,
           "attn_drop"_a, "drop_path"_a, "act_layer"_a, "norm_layer"_a, "head_dim"_a)
      .def("forward", &STTransformerBlockImpl::forward, "x"_a, "causal"_a = true, "num_frames"_a = py::none(),
           NoGil());
}

void bind_st_transformer(py::module_& m) {
  bind_st_attention<nn::STSpatialAttentionImpl>(m, "STSpatialAttention")
      .def("forward", &nn::STSpatialAttentionImpl::forward, "x"_a, NoGil());
  bind_st_attention<nn::STTemporalAttentionImpl>(m, "STTemporalAttention")
      .def("forward", &nn::STTemporalAttentionImpl::forward, "x"_a, "causal"_a = true, NoGil());
  module_class<nn::STMLPImpl>(m, "STMLP")
      .def(py::init<int64_t, int64_t, int64_t, std::string, double>(), py::kw_only(), "in_features"_a,
           "hidden_features"_a, "out_features"_a, "act_layer"_a, "drop"_a)
      .def("forward", &nn::STMLPImpl::forward, NoGil());
  module_class<nn::DropPathImpl>(m, "DropPath")
      .def(py::init<double>(), py::kw_only(), "drop_prob"_a)
      .def("forward", &nn::DropPathImpl::forward, NoGil());
  bind_st_block(m);
  using nn::STTransformerImpl;
  module_class<STTransformerImpl>(m, "STTransformer")
      .def(py::init([](int64_t num_frames, int64_t num_patches_per_frame, int64_t dim, int64_t depth,
                       int64_t num_heads, double mlp_ratio, bool qkv_bias, std::optional<double> qk_scale,
                       double drop_rate, double attn_drop_rate, double drop_path_rate,
                       bool gradient_checkpointing, int64_t head_dim) {
             return std::make_shared<STTransformerImpl>(
                 nn::STTransformerOptions{.num_frames = num_frames,
                                          .num_patches_per_frame = num_patches_per_frame,
                                          .dim = dim,
                                          .depth = depth,
                                          .num_heads = num_heads,
                                          .mlp_ratio = mlp_ratio,
                                          .qkv_bias = qkv_bias,
                                          .qk_scale = qk_scale,
                                          .drop_rate = drop_rate,
                                          .attn_drop_rate = attn_drop_rate,
                                          .drop_path_rate = drop_path_rate,
                                          .gradient_checkpointing = gradient_checkpointing,
                                          .head_dim = head_dim});
           }),
           py::kw_only(), "num_frames"_a, "num_patches_per_frame"_a, "dim"_a, "depth"_a, "num_heads"_a,
           "mlp_ratio"_a, "qkv_bias"_a, "qk_scale"_a, "drop_rate"_a, "attn_drop_rate"_a, "drop_path_rate"_a,
           "gradient_checkpointing"_a, "head_dim"_a)
      .def(
          "forward",
          [](STTransformerImpl& self, const at::Tensor& x, bool causal) { return self.forward(x, causal); },
          "x"_a, "causal"_a = true, NoGil());
}

template <class Impl>
void bind_rope_forward(ModuleClass<Impl>& c) {
  c.def(
      "forward",
      [](Impl& self, const at::Tensor& x, const OptionalTensor& mask, const OptionalTensor& attn_mask,
         std::optional<int64_t> frames, std::optional<int64_t> height, std::optional<int64_t> width) {
        return self.forward(
            x, nn::TokenGrid{.mask = mask, .frames = frames, .height = height, .width = width}, attn_mask);
      },
      "x"_a, "mask"_a = py::none(), "attn_mask"_a = py::none(), "T"_a = py::none(),
      "H_patches"_a = py::none(), "W_patches"_a = py::none(), NoGil());
}

nn::RoPEAttentionOptions rope_options(int64_t dim, int64_t num_heads, bool qkv_bias,
                                      std::optional<double> qk_scale, double attn_drop, double proj_drop,
                                      bool use_sdpa, int64_t grid_size, bool is_causal) {
  return {.dim = dim,
          .num_heads = num_heads,
          .qkv_bias = qkv_bias,
          .qk_scale = qk_scale,
          .attn_drop = attn_drop,
          .proj_drop = proj_drop,
          .use_sdpa = use_sdpa,
          .grid_size = grid_size,
          .is_causal = is_causal};
}

void bind_rope_attention(py::module_& m) {
  auto full = module_class<nn::RoPEAttentionImpl>(m, "RoPEAttention");
  full.def(py::init([](int64_t dim, int64_t num_heads, bool qkv_bias, std::optional<double> qk_scale,
                       double attn_drop, double proj_drop, bool use_sdpa, int64_t grid_size, bool is_causal) {
             return std::make_shared<nn::RoPEAttentionImpl>(rope_options(
                 dim, num_heads, qkv_bias, qk_scale, attn_drop, proj_drop, use_sdpa, grid_size, is_causal));
           }),
           py::kw_only(), "dim"_a, "num_heads"_a, "qkv_bias"_a, "qk_scale"_a, "attn_drop"_a, "proj_drop"_a,
           "use_sdpa"_a, "grid_size"_a, "is_causal"_a);
  bind_rope_forward(full);
  auto area = module_class<nn::RoPEAreaAttentionImpl>(m, "RoPEAreaAttention");
  area.def(py::init([](int64_t dim, int64_t num_heads, bool qkv_bias, std::optional<double> qk_scale,
                       double attn_drop, double proj_drop, bool use_sdpa, int64_t grid_size, bool is_causal,
                       int64_t spatial_splits, int64_t temporal_splits, double residual_scale) {
             return std::make_shared<nn::RoPEAreaAttentionImpl>(nn::RoPEAreaAttentionOptions{
                 .attention = rope_options(dim, num_heads, qkv_bias, qk_scale, attn_drop, proj_drop, use_sdpa,
                                           grid_size, is_causal),
                 .spatial_splits = spatial_splits,
                 .temporal_splits = temporal_splits,
                 .residual_scale = residual_scale});
           }),
           py::kw_only(), "dim"_a, "num_heads"_a, "qkv_bias"_a, "qk_scale"_a, "attn_drop"_a, "proj_drop"_a,
           "use_sdpa"_a, "grid_size"_a, "is_causal"_a, "spatial_splits"_a, "temporal_splits"_a,
           "residual_scale"_a);
  bind_rope_forward(area);
  m.def(
      "area_ids",
      [](const at::Tensor& ids, std::optional<int64_t> frames, int64_t height, int64_t width,
         int64_t spatial_splits, int64_t temporal_splits) {
        return nn::area_ids(ids, frames, height, width,
                            {.spatial = spatial_splits, .temporal = temporal_splits});
      },
      "ids"_a, "frames"_a, "height"_a, "width"_a, "spatial_splits"_a, "temporal_splits"_a);
}

/// What is made by STTransformer only.
void bind_frame_attention(py::module_& m) {
  module_class<nn::FrameAreaAttentionImpl>(m, "FrameAreaAttention")
      .def("forward", &nn::FrameAreaAttentionImpl::forward, "x"_a, "causal"_a = true, NoGil());
  module_class<nn::AreaBlockImpl>(m, "AreaBlock")
      .def("forward", &nn::AreaBlockImpl::forward_frames, "x"_a, "causal"_a = true, NoGil());
}

void bind_vit5_attention(py::module_& m) {
  using nn::ViT5AttentionImpl;
  module_class<ViT5AttentionImpl>(m, "ViT5Attention")
      .def(py::init([](int64_t hidden_dim, int64_t num_heads, int64_t num_patches_h, int64_t num_patches_w,
                       int64_t num_registers, bool has_cls, const std::optional<std::string>& qk_norm,
                       double rope_base, double reg_rope_base, double attn_dropout, double proj_dropout,
                       bool qkv_bias, bool out_proj_bias, std::optional<double> scale) {
             return std::make_shared<ViT5AttentionImpl>(
                 nn::ViT5AttentionOptions{.hidden_dim = hidden_dim,
                                          .num_heads = num_heads,
                                          .num_patches_h = num_patches_h,
                                          .num_patches_w = num_patches_w,
                                          .num_registers = num_registers,
                                          .has_cls = has_cls,
                                          .qk_norm = qk_norm,
                                          .rope_base = rope_base,
                                          .reg_rope_base = reg_rope_base,
                                          .attn_dropout = attn_dropout,
                                          .proj_dropout = proj_dropout,
                                          .qkv_bias = qkv_bias,
                                          .out_proj_bias = out_proj_bias,
                                          .scale = scale});
           }),
           py::kw_only(), "hidden_dim"_a, "num_heads"_a, "num_patches_h"_a, "num_patches_w"_a,
           "num_registers"_a, "has_cls"_a, "qk_norm"_a, "rope_base"_a, "reg_rope_base"_a, "attn_dropout"_a,
           "proj_dropout"_a, "qkv_bias"_a, "out_proj_bias"_a, "scale"_a)
      .def("forward", &ViT5AttentionImpl::forward, NoGil())
      .def("flop_count", &ViT5AttentionImpl::flop_count);
  module_class<nn::HeadNormImpl>(m, "HeadNorm").def("forward", &nn::HeadNormImpl::forward, NoGil());
}

void bind_cross_attention(py::module_& m) {
  module_class<nn::CrossAttentionImpl>(m, "CrossAttention")
      .def(py::init([](int64_t dim, int64_t n_heads, int64_t n_kv_heads, std::optional<int64_t> head_dim) {
             return std::make_shared<nn::CrossAttentionImpl>(nn::CrossAttentionOptions{
                 .dim = dim, .n_heads = n_heads, .n_kv_heads = n_kv_heads, .head_dim = head_dim});
           }),
           py::kw_only(), "dim"_a, "n_heads"_a, "n_kv_heads"_a, "head_dim"_a)
      .def("forward", &nn::CrossAttentionImpl::forward, "x"_a, "image_features"_a,
           "image_mask"_a = py::none(), NoGil());
  module_class<nn::CrossAttentionMLPImpl>(m, "CrossAttentionMLP")
      .def("forward", &nn::CrossAttentionMLPImpl::forward, NoGil());
  module_class<nn::CrossAttentionBlockImpl>(m, "CrossAttentionBlock")
      .def(py::init([](int64_t dim, int64_t n_heads, int64_t n_kv_heads, int64_t ffn_hidden_dim,
                       const std::string& norm_type, const std::string& activation) {
             return std::make_shared<nn::CrossAttentionBlockImpl>(
                 nn::CrossAttentionBlockOptions{.dim = dim,
                                                .n_heads = n_heads,
                                                .n_kv_heads = n_kv_heads,
                                                .ffn_hidden_dim = ffn_hidden_dim,
                                                .norm_type = norm_type,
                                                .activation = activation});
           }),
           py::kw_only(), "dim"_a, "n_heads"_a, "n_kv_heads"_a, "ffn_hidden_dim"_a, "norm_type"_a,
           "activation"_a)
      .def("forward", &nn::CrossAttentionBlockImpl::forward, "x"_a, "image_features"_a,
           "image_mask"_a = py::none(), NoGil());
}

void bind_embeddings(py::module_& m) {
  module_class<nn::RMSNormImpl>(m, "RMSNorm")
      .def(py::init<int64_t, double>(), py::kw_only(), "dim"_a, "eps"_a)
      .def("forward", &nn::RMSNormImpl::forward, NoGil());
  module_class<nn::PatchEmbeddingImpl>(m, "PatchEmbedding")
      .def(py::init<int64_t, int64_t, int64_t, int64_t>(), py::kw_only(), "height"_a, "width"_a,
           "patch_size"_a, "dim"_a)
      .def("forward", &nn::PatchEmbeddingImpl::forward, NoGil());
  module_class<nn::SpatialPositionalEmbeddingImpl>(m, "SpatialPositionalEmbedding")
      .def(py::init<int64_t, int64_t, int64_t>(), py::kw_only(), "rows"_a, "columns"_a, "dim"_a)
      .def("forward", &nn::SpatialPositionalEmbeddingImpl::forward, NoGil());
  module_class<nn::TemporalPositionalEmbeddingImpl>(m, "TemporalPositionalEmbedding")
      .def(py::init<int64_t, int64_t>(), py::kw_only(), "max_frames"_a, "dim"_a)
      .def("forward", &nn::TemporalPositionalEmbeddingImpl::forward, "x"_a, "offset"_a = 0, NoGil());
  module_class<nn::CombinedPositionalEmbeddingImpl>(m, "CombinedPositionalEmbedding")
      .def(py::init<int64_t, int64_t, int64_t, int64_t>(), py::kw_only(), "max_frames"_a, "rows"_a,
           "columns"_a, "dim"_a)
      .def("forward", &nn::CombinedPositionalEmbeddingImpl::forward, "x"_a, "frame_offset"_a = 0, NoGil());
}

void bind_vector_quantizer(py::module_& m) {
  using nn::VectorQuantizerImpl;
  module_class<VectorQuantizerImpl>(m, "VectorQuantizer")
      .def(py::init([](int64_t num_codes, int64_t code_dim, const std::string& update, double ema_decay,
                       double commitment_weight, double codebook_weight, bool kmeans_init,
                       int64_t dead_code_steps) {
             config::QuantizerConfig config;
             config.num_codes = num_codes;
             config.code_dim = code_dim;
             config.update = update;
             config.ema_decay = ema_decay;
             config.commitment_weight = commitment_weight;
             config.codebook_weight = codebook_weight;
             config.kmeans_init = kmeans_init;
             config.dead_code_steps = dead_code_steps;
             return std::make_shared<VectorQuantizerImpl>(config);
           }),
           py::kw_only(), "num_codes"_a, "code_dim"_a, "update"_a, "ema_decay"_a, "commitment_weight"_a,
           "codebook_weight"_a, "kmeans_init"_a, "dead_code_steps"_a)
      .def(
          "forward",
          [](VectorQuantizerImpl& self, const at::Tensor& x) {
            auto result = self.forward(x);
            return std::make_tuple(result.values, result.indices, result.loss);
          },
          NoGil())
      .def("lookup", &VectorQuantizerImpl::lookup, NoGil())
      .def("initialize_from", &VectorQuantizerImpl::initialize_from, NoGil())
      .def("update_codebook", &VectorQuantizerImpl::update_codebook, NoGil())
      .def("discard_statistics", &VectorQuantizerImpl::discard_statistics, NoGil())
      .def("take_usage", [](VectorQuantizerImpl& self) {
        const auto usage = self.take_usage();
        return std::make_pair(usage.share, usage.perplexity);
      });
}

}  // namespace

void bind_nn(py::module_& parent) {
  auto m = parent.def_submodule("nn", "C++ modules; genie_cpp.nn has them as torch.nn.Modules.");
  bind_module_handle(m);
  bind_st_transformer(m);
  bind_rope_attention(m);
  bind_frame_attention(m);
  bind_vit5_attention(m);
  bind_cross_attention(m);
  bind_embeddings(m);
  bind_vector_quantizer(m);
}

}  // namespace genie::python
