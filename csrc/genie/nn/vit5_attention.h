#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "genie/nn/linear.h"
#include "genie/nn/rebindable.h"

namespace genie::nn {

struct ViT5AttentionOptions {
  int64_t hidden_dim = 0;
  int64_t num_heads = 0;
  int64_t num_patches_h = 0;
  int64_t num_patches_w = 0;
  int64_t num_registers = 4;
  bool has_cls = true;
  std::optional<std::string> qk_norm = std::nullopt;  ///< "rmsnorm" or "layernorm"
  double rope_base = 10000;
  double reg_rope_base = 100;
  double attn_dropout = 0;
  double proj_dropout = 0;
  bool qkv_bias = false;
  bool out_proj_bias = false;
  std::optional<double> scale = std::nullopt;  ///< head_dim^-0.5 where absent; 0 is honoured
  int64_t head_dim = 0;                        ///< hidden_dim / num_heads where 0
  int64_t num_plain_tokens = 0;  ///< further tokens between patches and CLS, which aren't turned either
};

/// Norm of each head's queries or keys: RMS or LayerNorm without bias, learned weight, eps 1e-6, float32
/// inside.
class HeadNormImpl : public torch::nn::Module, public Rebindable {
 public:
  HeadNormImpl(int64_t head_dim, bool subtract_mean);
  at::Tensor forward(const at::Tensor& x);
  void rebind(const std::string& name, const at::Tensor& tensor) override;
  void pretty_print(std::ostream& stream) const override;

 private:
  bool subtract_mean_;
  at::Tensor weight_;
};
TORCH_MODULE(HeadNorm);

/// Self-attention with register-aware 2-D rotary positions and norms of queries and keys (NVIDIA
/// nvSubquadratic, nvsubquadratic/modules/vit5_attention.py). The tokens are [patches row by row, plain
/// ones, CLS if has_cls, registers].
class ViT5AttentionImpl : public torch::nn::Module, public DerivedBuffers {
 public:
  explicit ViT5AttentionImpl(const ViT5AttentionOptions& options);

  /// x (B,T,hidden_dim), T = patches + CLS + registers, in the dtype of the module (any under autocast). Same
  /// shape out.
  at::Tensor forward(const at::Tensor& x);

  /// Floating-point operations of a sample of `num_tokens`: 8TD^2 + 4T^2D + 4TD, with norms of queries and
  /// keys 2*3TD more.
  int64_t flop_count(int64_t num_tokens) const;
  int64_t num_tokens() const;
  const ViT5AttentionOptions& options() const { return options_; }

  /// rope_cos and rope_sin (T,head_dim): float32, also in a bfloat16 module; float64 in a float64 one.
  std::vector<std::pair<std::string, at::Tensor>> derived_buffers() const override;
  void rebuild_derived_buffers() override;
  using torch::nn::Module::to;
  void to(torch::Device device, torch::Dtype dtype, bool non_blocking = false) override;
  void to(torch::Dtype dtype, bool non_blocking = false) override;
  void to(torch::Device device, bool non_blocking = false) override;

 private:
  ViT5AttentionOptions options_;
  int64_t head_dim_;
  double scale_;
  Linear qkv_{nullptr}, proj_{nullptr};
  HeadNorm q_norm_{nullptr}, k_norm_{nullptr};
  at::Tensor angles_;  // (T,head_dim), float64 on the CPU
  at::Tensor rope_cos_, rope_sin_;
};
TORCH_MODULE(ViT5Attention);

}  // namespace genie::nn
