#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "genie/config/config.h"
#include "genie/inference/session_state.h"
#include "genie/inference/token_history.h"
#include "genie/models/dynamics_model.h"
#include "genie/nn/temporal_cache.h"

namespace genie::inference {

/// A world under way in token space: a prompt, then a frame an action. What past frames' temporal keys and
/// values were is kept, so a MaskGIT step computes the current frame only, and gives what a forward of all
/// frames would. A frame sees the model's num_frames frames, itself included. With learned time positions a
/// sliding window is encoded again once a frame.
///
/// Memory doesn't grow with the frames there were. Not for several threads at once; sessions of one model may
/// run in one thread each.
class TokenSession {
 public:
  /// prompt int64 (B,T0,N), T0 >= 1; actions int64 (B,T0-1), those between its frames. `options.history`
  /// frames can be taken back. Raises ValueError for another shape, IndexError for an id that does not exist.
  TokenSession(models::DynamicsModel model, const at::Tensor& prompt_BTN, const at::Tensor& actions_BT,
               const config::InferenceConfig& options, uint64_t seed);

  /// A session as state() of another one, with this model, left it. Raises ValueError or IndexError where the
  /// state does not fit the model.
  TokenSession(models::DynamicsModel model, const SessionState& state);
  /// What there is of tokens, options, seed and cache; the rest stays empty.
  SessionState state() const;

  /// The next frame under actions int64 (B): tokens (B,N).
  at::Tensor step(const at::Tensor& actions_B);
  /// Takes the last `frames` steps back; they and the cache must still be held, which the caller knows.
  void rewind(int64_t frames);
  /// A session that shares nothing with this one but the model.
  TokenSession fork(uint64_t seed) const;

  int64_t batch_size() const { return history_.newest().size(0); }
  uint64_t seed() const { return seed_; }
  const TokenHistory& history() const { return history_; }
  const config::InferenceConfig& options() const { return options_; }
  void configure(const config::InferenceConfig& options) { options_ = options; }

 private:
  void encode_past();

  models::DynamicsModel model_;
  config::InferenceConfig options_;
  uint64_t seed_;
  TokenHistory history_;
  nn::TemporalCache cache_;
  int64_t cache_begin_ = 0;  // number of the cache's first frame
};

}  // namespace genie::inference
