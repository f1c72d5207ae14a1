#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "genie/config/config.h"
#include "genie/nn/temporal_cache.h"

namespace genie::inference {

/// A temporal cache, and the number of the frame its first one is.
struct CacheState {
  int64_t begin = 0;
  int64_t length = 0;
  int64_t reached = 0;
  std::vector<at::Tensor> tensors;  // undefined where nothing was written yet

  static CacheState of(const nn::TemporalCache& cache, int64_t begin) {
    return {begin, cache.length(), cache.reached(), cache.clone().tensors()};
  }
};

/// All there is to a session beside the model: one that is made of it goes on as the original would.
struct SessionState {
  config::InferenceConfig options;
  uint64_t seed = 0;
  int64_t first = 0;   // number of the first frame of `tokens`
  at::Tensor tokens;   // int64 (B,T,N)
  at::Tensor leading;  // int64 (B,T)
  at::Tensor frames;   // uint8 (B,F,H,W,3): the last F frames
  at::Tensor actions;  // int64 (B,S)
  CacheState world, decoder;
};

}  // namespace genie::inference
