#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <optional>
#include <utility>

#include "genie/nn/linear.h"
#include "genie/nn/mlp.h"
#include "genie/nn/temporal_cache.h"

namespace genie::nn {

/// Arguments of both ST attention modules.
struct STAttentionOptions {
  int64_t dim = 0;
  int64_t num_heads = 8;
  bool qkv_bias = false;
  std::optional<double> qk_scale = std::nullopt;  ///< head_dim^-0.5 where absent
  double attn_drop = 0;
  double proj_drop = 0;
  int64_t head_dim = 0;  ///< dim / num_heads where 0
  /// Temporal attention turns queries and keys with the frame's number where above 0 (rotary positions, Su et
  /// al. 2021, arXiv 2104.09864), and a frame sees so many frames, itself included. Needs a head_dim
  /// divisible by 4.
  int64_t rotary_window = 0;
};

/// What spatial and temporal attention share: packed projection, per-head LayerNorm of queries and keys (no
/// affine, eps 1e-6), output projection. After TorchWM's st_transformer; see STSpatialAttentionImpl for where
/// it differs.
class STAttentionBase : public torch::nn::Module {
 public:
  explicit STAttentionBase(const STAttentionOptions& options);
  const STAttentionOptions& options() const { return options_; }

 protected:
  enum class Axis { space, time };
  /// Attention of x (B,T,N,C) along an axis; returns (B,T,N,C).
  at::Tensor attend(const at::Tensor& x, Axis axis, bool causal);
  /// x + drop_path(attend(norm(x))); by fewer, larger ops where there are such for it.
  at::Tensor attend_and_add(const at::Tensor& x, torch::nn::AnyModule& norm, DropPathImpl& drop_path,
                            Axis axis, bool causal);
  /// x + the temporal attention of norm(x)'s frames, which follow those in the cache and are written to it
  /// (not committed).
  at::Tensor attend_cached_and_add(const at::Tensor& x, torch::nn::AnyModule& norm, TemporalCache& cache,
                                   int64_t layer);

 private:
  at::Tensor project(const at::Tensor& x);  // packed qkv (B,T,N,3,H,d)
  at::Tensor project_normalized(const at::Tensor& x, const torch::nn::LayerNormImpl& norm);  // of norm(x)
  at::Tensor as_heads(const at::Tensor& packed) const;
  at::Tensor attention_cached(const at::Tensor& qkv, TemporalCache& cache, int64_t layer);  // merged heads
  /// Per-head LayerNorm of queries or keys (B,T,N,...,d); with `turned`, and rotary positions, frame `first`
  /// + t's angles on top.
  at::Tensor normalized(const at::Tensor& qk, bool turned, int64_t first) const;
  at::Tensor attention_of(const at::Tensor& qkv, Axis axis, bool causal) const;  // merged heads (B,T,N,H*d)
  // With dropout, where the fused op has no kernel, and where a frame sees less than all before it.
  at::Tensor attend_unfused(const at::Tensor& qkv, Axis axis, bool causal, double drop) const;
  /// The cosines and sines (frames,d) of frames first, first + 1, ...
  std::pair<at::Tensor, at::Tensor> angles(int64_t first, int64_t frames,
                                           const at::TensorOptions& options) const;
  at::Tensor attend_past(const at::Tensor& qkv, TemporalCache& cache, int64_t layer) const;
  at::Tensor attend_past_fused(const at::Tensor& qkv, TemporalCache& cache, int64_t layer) const;

  STAttentionOptions options_;
  int64_t head_dim_;
  double scale_;
  Linear qkv_{nullptr}, proj_{nullptr};
};

/// Attention among the N tokens of each frame. Unlike the original, which scrambles frames and heads when it
/// merges them, the output of a frame depends on that frame alone.
class STSpatialAttentionImpl : public STAttentionBase {
 public:
  using STAttentionBase::STAttentionBase;
  at::Tensor forward(const at::Tensor& x) { return attend(x, Axis::space, false); }
  /// x + drop_path(forward(norm(x))).
  at::Tensor add_to(const at::Tensor& x, torch::nn::AnyModule& norm, DropPathImpl& drop_path) {
    return attend_and_add(x, norm, drop_path, Axis::space, false);
  }
};
TORCH_MODULE(STSpatialAttention);

/// Attention over the T frames at each token's place; with `causal` a frame sees itself and earlier ones.
class STTemporalAttentionImpl : public STAttentionBase {
 public:
  using STAttentionBase::STAttentionBase;
  at::Tensor forward(const at::Tensor& x, bool causal = true) { return attend(x, Axis::time, causal); }
  /// x + drop_path(forward(norm(x))).
  at::Tensor add_to(const at::Tensor& x, torch::nn::AnyModule& norm, DropPathImpl& drop_path, bool causal) {
    return attend_and_add(x, norm, drop_path, Axis::time, causal);
  }
  /// x + the causal attention of norm(x)'s new frames (B,T_new,N,C) to those committed to the cache and to
  /// themselves. T_new is 1 unless the cache is empty.
  at::Tensor add_cached_to(const at::Tensor& x, torch::nn::AnyModule& norm, TemporalCache& cache,
                           int64_t layer) {
    return attend_cached_and_add(x, norm, cache, layer);
  }
};
TORCH_MODULE(STTemporalAttention);

}  // namespace genie::nn
