#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace genie::training {

/// What a cache was made from, by readable names ("tokenizer weights" -> their checksum): it fits where all
/// are the same.
using CacheKey = std::map<std::string, std::string>;

/// A file of the tokens and latent actions of clips. A directory holds key.json and tokens.bin: for each
/// clip, at a fixed place, a CRC-32 and the numbers as 16 bit. A clip is there where the checksum fits, so
/// that a write cut short anywhere costs this clip and no other, and several processes may write at once.
/// Memory is taken for one clip at a time.
class TokenCache {
 public:
  struct Shape {
    int64_t clips = 0, frames = 0, tokens_per_frame = 0;
  };
  struct Clip {
    at::Tensor tokens;   ///< int64 (T,N)
    at::Tensor actions;  ///< int64 (T-1)
  };

  /// Makes `directory` hold a cache of this key, in one process. A cache of another key is thrown away;
  /// returns how the keys differ, '' where nothing was thrown away.
  static std::string prepare(const std::string& directory, const CacheKey& key);

  /// Opens the prepared cache. Throws Error where it is missing or of another key.
  TokenCache(const std::string& directory, const CacheKey& key, const Shape& shape);
  ~TokenCache();
  TokenCache(const TokenCache&) = delete;
  TokenCache& operator=(const TokenCache&) = delete;

  const Shape& shape() const { return shape_; }
  bool has(int64_t clip) const;
  /// Throws Error for a clip that is missing or damaged.
  Clip read(int64_t clip) const;
  /// Throws Error where the disk is full.
  void write(int64_t clip, const at::Tensor& tokens, const at::Tensor& actions);
  /// Brings what was written to disk.
  void sync();

 private:
  int64_t numbers() const { return shape_.frames * shape_.tokens_per_frame + shape_.frames - 1; }
  int64_t record_bytes() const { return 4 + 2 * numbers(); }
  bool load(int64_t clip, std::vector<uint16_t>& numbers) const;

  std::string path_;
  Shape shape_;
  int file_ = -1;
};

}  // namespace genie::training
