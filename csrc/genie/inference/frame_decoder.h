#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "genie/inference/session_state.h"
#include "genie/inference/token_history.h"
#include "genie/models/video_tokenizer.h"
#include "genie/nn/temporal_cache.h"

namespace genie::inference {

/// Turns a session's tokens into pictures as they come, each frame decoded once behind the cache of those
/// before it. With learned time positions the window begins anew with the later half of its frames where it
/// is full; which frames a frame was decoded with follows from its number alone.
class FrameDecoder {
 public:
  FrameDecoder(models::VideoTokenizer tokenizer, int64_t history);

  /// Of the frames from number `next` on: video (B,count,3,H,W) in [0,1].
  at::Tensor decode(const TokenHistory& history, int64_t next);
  FrameDecoder fork() const;

  CacheState state() const { return CacheState::of(cache_, cache_begin_); }
  /// `frames` is the number of frames there are.
  void restore(const CacheState& state, int64_t frames);

 private:
  /// The first frame that frame number `frame` is decoded with.
  int64_t window_begin(int64_t frame) const;

  models::VideoTokenizer tokenizer_;
  nn::TemporalCache cache_;
  int64_t cache_begin_ = 0;
};

}  // namespace genie::inference
