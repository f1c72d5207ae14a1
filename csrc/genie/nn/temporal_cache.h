#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace genie::nn {

/// Keys and values of temporal attention, one pair a layer, (B,N,H,capacity,d). Attention over time is causal
/// and attention over space stays inside a frame, so what past frames put here never changes while a later
/// one is refined: a frame under way writes at `length` again and again, and `commit` makes it part of the
/// past.
class TemporalCache {
 public:
  TemporalCache(int64_t num_layers, int64_t capacity) : layers_(num_layers), capacity_(capacity) {}

  int64_t length() const { return length_; }  ///< frames committed
  int64_t capacity() const { return capacity_; }
  int64_t num_layers() const { return static_cast<int64_t>(layers_.size()); }
  void commit(int64_t frames);
  void clear() { length_ = 0; }
  /// Forgets all but the first `frames` frames.
  void truncate(int64_t frames);
  /// A copy that shares nothing.
  TemporalCache clone() const;

  struct KeysValues {
    at::Tensor keys, values;  ///< (B,N,H,length + new,d), views of the cache
  };
  /// Writes keys and values (B,T_new,N,H,d) of new frames behind the committed ones.
  KeysValues write(int64_t layer, const at::Tensor& keys_BTNHd, const at::Tensor& values_BTNHd);
  /// The same for what is looked back at beside the attention layers, (B,T_new,...): returns (B,length +
  /// new,...). Each kind has a slot of its own.
  at::Tensor write_memory(size_t slot, const at::Tensor& memory);

 private:
  std::vector<KeysValues> layers_;
  std::vector<at::Tensor> memories_;
  int64_t capacity_;
  int64_t length_ = 0;
};

}  // namespace genie::nn
