#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "genie/data/chunk_cache.h"
#include "genie/data/chunk_codec.h"
#include "genie/data/hdf5_file.h"

namespace genie::data {

/// Reads frames of a uint8 (N,H,W,3) dataset from several threads at once. Chunks are fetched as stored under
/// the library's lock and decoded outside it; layouts and filters that are not known here are read through
/// HDF5, with the same result.
class FrameReader {
 public:
  FrameReader() = default;
  /// Takes a checked dataset of the file `path`, in a Session.
  FrameReader(hdf5::Handle dataset, const std::string& path);
  ~FrameReader();

  /// Frames begin, begin + stride, ... into out, `count` * H * W * 3 bytes. The range has been checked.
  void read(int64_t begin, int64_t count, int64_t stride, uint8_t* out) const;

  /// Bytes of decoded chunks kept.
  size_t cached_bytes() const { return cache_->bytes(); }

 private:
  using Index = std::array<int64_t, 4>;

  void read_through_library(const Index& begin, const Index& count, int64_t stride, uint8_t* out) const;
  void read_chunks(int64_t begin, int64_t count, int64_t stride, uint8_t* out) const;
  ChunkCache::Bytes chunk(const Index& index) const;
  [[noreturn]] void throw_damaged(int64_t frame, const std::string& reason) const;

  hdf5::Handle dataset_;
  std::string path_;
  Index shape_{};
  Index chunk_shape_{};  ///< zeros where chunks are not read here
  std::unique_ptr<ChunkCodec> codec_;
  std::unique_ptr<ChunkCache> cache_;
};

}  // namespace genie::data
