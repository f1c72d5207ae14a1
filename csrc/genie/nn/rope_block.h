#pragma once

#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <memory>
#include <optional>

#include "genie/nn/mlp.h"
#include "genie/nn/packed_tokens.h"
#include "genie/nn/rope_attention.h"

namespace genie::nn {

struct RoPEBlockOptions {
  RoPEAttentionOptions attention;
  /// With these the block attends inside areas, else among all tokens of a sequence.
  std::optional<AreaSplits> areas = std::nullopt;
  double residual_scale = 1;  ///< of area attention
  double mlp_ratio = 4;
  double drop = 0;
  double drop_path = 0;
};

/// A layer of V-JEPA 2's encoder and predictor (facebookresearch/vjepa2, src/models/utils/modules.py): x +
/// attention(norm1(x)), then + mlp(norm2(x)); norms with eps 1e-6. It works on packed tokens.
class RoPEBlockImpl : public torch::nn::Module {
 public:
  explicit RoPEBlockImpl(const RoPEBlockOptions& options);
  /// x (R*N,dim) in packed order, same shape out.
  at::Tensor forward(const at::Tensor& x, const PackedTokens& tokens);
  bool uses_areas() const { return areas_; }

 private:
  /// Drops whole sequences.
  at::Tensor drop_sequences(const at::Tensor& x, const PackedTokens& tokens);

  bool areas_;
  torch::nn::LayerNorm norm1_{nullptr}, norm2_{nullptr};
  std::shared_ptr<RoPEAttentionImpl> attn_;
  STMLP mlp_{nullptr};
  DropPath drop_path_{nullptr};
};
TORCH_MODULE(RoPEBlock);

/// What a stack of blocks is made of; the layers [first_layer, end_layer) use areas.
struct RoPEStackOptions {
  int64_t dim = 768;
  int64_t depth = 12;
  int64_t heads = 12;
  double mlp_ratio = 4;
  bool qkv_bias = true;
  std::optional<double> qk_scale = std::nullopt;
  double drop = 0;
  double drop_path = 0;  ///< of the last layer, growing linearly from 0
  bool checkpointing = false;
  std::optional<AreaSplits> areas = std::nullopt;
  int64_t first_area_layer = 0;
  std::optional<int64_t> end_area_layer = std::nullopt;  ///< depth * 3 / 4 where absent
  double area_residual_scale = 1;
};

/// Layer `index` of such a stack. Raises ValueError for options that don't fit.
RoPEBlock make_rope_block(const RoPEStackOptions& options, int64_t index);

/// The areas a stack needs its tokens sorted by: none where no layer uses them.
std::optional<AreaSplits> areas_in_use(const RoPEStackOptions& options);

/// Runs a block, without keeping its intermediate results where `checkpointing` is on and gradients are.
at::Tensor run_block(RoPEBlockImpl& block, const at::Tensor& x, const PackedTokens& tokens,
                     bool checkpointing);

/// V-JEPA's start: weights of linear and convolution layers from N(0, 0.02) (cut at +-2, which is a hundred
/// standard deviations), biases 0.
void initialize_vjepa(torch::nn::Module& module);
/// After it: divides the weights that write to the residual stream by sqrt(2 layer), layers counted from 1.
void rescale_block(RoPEBlockImpl& block, int64_t layer);

}  // namespace genie::nn
