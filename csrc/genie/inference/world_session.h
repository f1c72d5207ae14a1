#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "genie/config/config.h"
#include "genie/inference/frame_decoder.h"
#include "genie/inference/token_session.h"
#include "genie/models/genie.h"

namespace genie::inference {

/// A learned world being played: prompt frames, then a frame for each action. Beside TokenSession it decodes
/// the frames, and can be rewound by the last options.history steps, forked and saved (session_file.h).
/// A batch plays several prompts at once.
///
/// Calls from several threads wait for each other; sessions of one model run side by side. The models must
/// stay in evaluation mode with the weights they have.
class WorldSession {
 public:
  /// prompt int64 (B,T0,N): tokens, actions int64 (B,T0-1) between them. Raises Error for an option that is
  /// out of range or needs another processor and a model in training mode, else as TokenSession.
  WorldSession(models::Genie genie, const at::Tensor& prompt_BTN, const at::Tensor& actions_BT,
               const config::InferenceConfig& options, uint64_t seed);
  /// The same from uint8 video (B,T0,H,W,3), 1 <= T0 <= the models' num_frames; its actions are inferred.
  static WorldSession from_frames(models::Genie genie, const at::Tensor& video_BTHWC,
                                  const config::InferenceConfig& options, uint64_t seed);
  /// A session as state() of another one, with this model, left it; errors as TokenSession's.
  WorldSession(models::Genie genie, const SessionState& state);
  WorldSession(WorldSession&& other) noexcept;

  /// The next frame under actions int64 (B): uint8 (B,H,W,3).
  at::Tensor step(const at::Tensor& actions_B);
  /// Takes the last `steps` steps back and returns the frame that was there then. Raises Error where fewer
  /// steps were taken or can be taken back.
  at::Tensor rewind(int64_t steps);
  /// An independent copy: with the same seed the same actions give the same frames as here.
  WorldSession fork(std::optional<uint64_t> seed = std::nullopt) const;

  at::Tensor frame() const;   ///< uint8 (B,H,W,3)
  at::Tensor frames() const;  ///< uint8 (B,T,H,W,3): those still held, at least the last history + 1
  at::Tensor tokens() const;  ///< int64 (B,N) of the current frame
  int64_t batch_size() const;
  int64_t num_actions() const;
  int64_t num_steps_taken() const;
  uint64_t seed() const;
  at::Tensor actions() const;  ///< int64 (B,steps taken)
  SessionState state() const;
  const models::Genie& genie() const { return genie_; }
  config::InferenceConfig options() const;
  /// Other options from the next step on; `history` stays what it was.
  void configure(const config::InferenceConfig& options);

 private:
  WorldSession(const WorldSession& other, std::optional<uint64_t> seed);
  void decode_new();

  mutable std::mutex mutex_;
  models::Genie genie_;
  TokenSession world_;
  FrameDecoder decoder_;
  std::deque<at::Tensor> frames_;    // uint8 (B,H,W,3); the last belongs to the newest tokens
  std::vector<at::Tensor> actions_;  // int64 (B) each
};

}  // namespace genie::inference
