#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

#include "genie/nn/rope_attention.h"
#include "genie/nn/temporal_cache.h"

namespace genie::nn {

struct FrameAreaAttentionOptions {
  RoPEAreaAttentionOptions area;  ///< is_causal is not used: forward() is told
  int64_t rows = 0, columns = 0;  ///< patches of a frame
  int64_t num_frames = 0;         ///< frames of a whole clip; the temporal areas divide these
  bool endless = false;           ///< clips may be longer: areas of that length follow one another
};

/// Area attention over frames of patches and further tokens (actions, CLS, registers), causal by frame: a
/// patch sees its area in its own and earlier frames. The further tokens of a frame take part in each of its
/// areas, turned by their time only; what they get is the mean over those areas. The areas depend on the
/// clip's full length, so that a frame never learns how many follow.
class FrameAreaAttentionImpl : public RoPEAreaAttentionImpl {
 public:
  explicit FrameAreaAttentionImpl(const FrameAreaAttentionOptions& options);

  /// x (B,T,N,C), T <= num_frames: the frame's rows * columns patches row by row, then its further tokens.
  /// Same shape out.
  at::Tensor forward(const at::Tensor& x, bool causal = true);
  /// Causal attention of new frames x (B,T_new,N,C) to those committed to the cache and to themselves. T_new
  /// is 1 unless the cache is empty.
  at::Tensor forward_cached(const at::Tensor& x, TemporalCache& cache, int64_t layer);

 private:
  /// The tokens of `frames` frames sorted by area; the further ones come once in each area of their frame.
  struct Layout {
    at::Tensor source;      // int64 (L): token t*N + n that comes at each place
    at::Tensor frame;       // int64 (L)
    at::Tensor cu_seqlens;  // int64 (areas + 1)
    at::Tensor patches;     // int64 (T*rows*columns): place of each patch
    at::Tensor further;     // int64 (T*further*areas of a frame): places of each further token
  };
  Layout layout(int64_t frames, int64_t further, const at::Device& device);
  void check_input(const at::Tensor& x, int64_t offset) const;
  Heads project_frames(const at::Tensor& x, int64_t offset);  // (B,T*N,H,d)
  at::Tensor attend(const Heads& heads, int64_t frames, bool causal);
  at::Tensor attend_area(const Heads& heads, const TemporalCache::KeysValues& past, int64_t frame,
                         int64_t area) const;
  int64_t first_row(int64_t area) const;  // of a frame's area; rows_ behind the last one
  int64_t temporal_area(int64_t frame) const;

  int64_t rows_, columns_, num_frames_;
  bool endless_;
  int64_t areas_per_frame_, temporal_areas_;  // that can hold anything
  std::mutex layouts_mutex_;                  // forward may run in several threads
  std::map<std::pair<int64_t, int64_t>, Layout> layouts_;
};
TORCH_MODULE(FrameAreaAttention);

}  // namespace genie::nn
