#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

namespace genie::data {

/// What a recording says about itself; see docs/data_format.md.
struct VideoWriterOptions {
  double fps = 0;           ///< frames a second; 0 leaves it out
  std::string env = {};          ///< '' leaves it out
  int64_t num_actions = 0;  ///< 0 leaves it out
};

/// Writes a file that VideoFile reads: frames in gzip chunks of about a megabyte. It grows under the name
/// PATH.partial and gets its own name, replacing a file that had it, only when close() has finished; so a
/// crash leaves no half file under that name. Destroyed without close(), it removes what it wrote.
class VideoWriter {
 public:
  VideoWriter(const std::string& path, int64_t height, int64_t width, const VideoWriterOptions& options = {});
  ~VideoWriter();

  /// Adds frames uint8 (n,H,W,3) and, in every call or in none, their actions (n) of any integer type in
  /// 0..32767: entry t led from frame t to t + 1.
  void append(const at::Tensor& frames, const at::Tensor& actions = {});
  /// The next frame begins a new episode. Does nothing where the episode has no frame yet.
  void end_episode();
  /// Ends the episode, completes the file and gives it its name. Nothing can be added then.
  void close();
  /// Removes what was written; nothing can be added then. Does nothing after close().
  void discard();

  const std::string& path() const;
  int64_t num_frames() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace genie::data
