#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace genie::nn {

/// What past frames left for later ones to look back at: keys and values of temporal attention, a pair a
/// layer, and memories beside the layers. Attention over time is causal and attention over space stays inside
/// a frame, so what past frames put here never changes while a later one is refined: a frame under way writes
/// its place again and again, and `commit` makes it part of the past.
///
/// Frames are numbered from 0 since clear(). A frame sees `window` frames, itself included; `history` further
/// ones are kept, by which truncate() can go back. Memory is a ring of window + history frames, so it stays
/// the same however many frames there were.
class TemporalCache {
 public:
  TemporalCache(int64_t num_layers, int64_t window, int64_t history = 0);

  int64_t length() const { return length_; }  ///< frames committed; the number of the next one
  int64_t window() const { return window_; }
  int64_t slots() const { return slots_; }
  int64_t num_layers() const { return static_cast<int64_t>(layers_.size()); }
  /// The first frame that frame length() sees.
  int64_t first_seen() const { return length_ < window_ ? 0 : length_ - window_ + 1; }
  int64_t slot(int64_t frame) const { return frame % slots_; }
  void commit(int64_t frames);
  void clear() { length_ = reached_ = 0; }
  /// Whether frame `frames` could still see all it has to after truncate(frames).
  bool can_truncate(int64_t frames) const;
  /// Forgets all but the first `frames` frames.
  void truncate(int64_t frames);
  /// A copy that shares nothing.
  TemporalCache clone() const;

  struct KeysValues {
    at::Tensor keys, values;
  };
  /// Writes keys and values (B,T_new,N,H,d) of new frames behind the committed ones.
  void write(int64_t layer, const at::Tensor& keys_BTNHd, const at::Tensor& values_BTNHd);
  /// Keys and values (B,N,T,H,d), in order of time, of the frames that frame length() sees, itself included.
  KeysValues seen(int64_t layer) const;
  /// The ring itself, (B,N,slots,H,d), for a kernel that writes the new frame into its slot.
  const KeysValues& ring(int64_t layer, at::IntArrayRef shape_BNHd, const at::TensorOptions& options);

  /// The same for what is looked back at beside the attention layers, (B,T_new,...); each kind has a slot of
  /// its own. Returns (B,T,...): the frames that frame length() sees, and the new ones.
  at::Tensor write_memory(size_t kind, const at::Tensor& memory);

  /// All the memory there is, in an order that depends on the model alone; undefined where nothing was
  /// written yet. Assigning them and the length to a fresh cache restores this one.
  std::vector<at::Tensor> tensors() const;
  void restore(const std::vector<at::Tensor>& tensors, int64_t length, int64_t reached);
  int64_t reached() const { return reached_; }  ///< the most frames there were since clear()

 private:
  void put(at::Tensor& ring, const at::Tensor& frames, int64_t time_axis);
  at::Tensor in_order(const at::Tensor& ring, int64_t time_axis, int64_t end) const;

  std::vector<KeysValues> layers_;
  std::vector<at::Tensor> memories_;
  int64_t window_, slots_;
  int64_t length_ = 0;
  int64_t reached_ = 0;
};

}  // namespace genie::nn
