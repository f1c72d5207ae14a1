#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>

namespace genie::inference {

/// The latest frames of a session, as tokens, with the action that led to each. Frames are numbered from the
/// prompt's first one; older ones are dropped.
class TokenHistory {
 public:
  explicit TokenHistory(int64_t capacity) : capacity_(capacity) {}

  int64_t length() const { return first_ + static_cast<int64_t>(frames_.size()); }  ///< frames there were
  int64_t first() const { return first_; }  ///< the earliest that is held
  /// tokens int64 (B,N), leading int64 (B).
  void push(const at::Tensor& tokens_BN, const at::Tensor& leading_B) {
    frames_.push_back({tokens_BN, leading_B});
  }
  /// Forgets the last `count` frames.
  void pop(int64_t count) { frames_.erase(frames_.end() - count, frames_.end()); }
  /// Drops what is beyond the capacity.
  void trim();

  const at::Tensor& newest() const { return frames_.back().tokens; }
  /// Of frames begin .. end - 1: tokens (B,T,N), and what led to them (B,T).
  at::Tensor tokens(int64_t begin, int64_t end) const;
  at::Tensor leading(int64_t begin, int64_t end) const;
  /// The same of all frames from number `first` on, as a session file holds them.
  void restore(int64_t first, const at::Tensor& tokens_BTN, const at::Tensor& leading_BT);

 private:
  struct Frame {
    at::Tensor tokens, leading;
  };
  int64_t capacity_;
  int64_t first_ = 0;
  std::deque<Frame> frames_;
};

}  // namespace genie::inference
