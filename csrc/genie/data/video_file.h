#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace genie::data {

/// An HDF5 file of recorded video (docs/data_format.md): `frames` uint8 (N,H,W,3), optional `episode_ends`
/// int64 (E), optional `actions` int (N), attributes `fps`, `env`, `num_actions`. Opening checks the whole
/// layout and throws genie::Error naming file, dataset, what was expected and what was found. Reading is
/// thread-safe.
class VideoFile {
 public:
  explicit VideoFile(const std::string& path);
  ~VideoFile();

  const std::string& path() const;
  int64_t num_frames() const;
  int64_t height() const;
  int64_t width() const;
  double fps() const;              ///< frames a second; 0 where the file does not say
  const std::string& env() const;  ///< '' where the file does not say
  const std::vector<int64_t>& episode_ends()
      const;  ///< one past each episode's last frame; {num_frames} if absent
  bool has_actions() const;
  int64_t num_actions() const;  ///< the attribute, else 1 + the largest action; 0 without actions

  /// Frames begin, begin + stride, ... as uint8 (count,H,W,3). Only the chunks they lie in are decoded.
  at::Tensor read_frames(int64_t begin, int64_t count, int64_t stride = 1) const;
  /// All recorded actions, int64 (N): entry t led from frame t to frame t + 1. Undefined without actions.
  const at::Tensor& actions() const;
  /// Bytes of decoded chunks held for later reads; at most 64 MiB.
  size_t cached_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace genie::data
