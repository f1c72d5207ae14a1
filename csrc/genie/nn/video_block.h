#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>

#include "genie/nn/temporal_cache.h"

namespace genie::nn {

/// A transformer layer over frames of tokens: what STTransformer is a stack of.
class VideoBlock : public torch::nn::Module {
 public:
  /// x (B,T,N,C), same shape out. With `causal` a frame depends on itself and earlier ones only.
  virtual at::Tensor forward_frames(const at::Tensor& x, bool causal) = 0;
  /// The same, causal, for new frames x (B,T_new,N,C) behind those committed to the cache, to which their
  /// keys and values are written (not committed). T_new is 1 unless the cache is empty.
  virtual at::Tensor forward_cached(const at::Tensor& x, TemporalCache& cache, int64_t layer) = 0;
};

}  // namespace genie::nn
