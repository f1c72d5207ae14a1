#pragma once

#include <hdf5.h>

#include <cstdint>
#include <string>
#include <vector>

namespace genie::data {

/// h5py's LZF compression, an HDF5 filter outside the library.
inline constexpr H5Z_filter_t lzf_filter_id = 32000;

namespace hdf5 {
/// Makes HDF5 itself read (and write) LZF chunks, unless something in this process did already. To be called
/// in a Session.
void register_lzf();
}  // namespace hdf5

/// Decodes a dataset's chunks of bytes without HDF5, so that threads can do so at once: deflate (gzip) or
/// LZF, with or without shuffle (which leaves bytes as they are).
class ChunkCodec {
 public:
  /// From a dataset's creation properties, in a Session.
  explicit ChunkCodec(hid_t creation_properties);

  /// Whether it knows every filter; where not, chunks must be read through HDF5.
  bool supported() const { return supported_; }

  /// The `size` bytes of a chunk as stored, decoded into `out` of exactly `out_size` bytes. Bits of
  /// `skipped_filters` mark filters that were not applied to it. Returns what is wrong, '' if nothing is.
  std::string decode(const uint8_t* stored, size_t size, uint32_t skipped_filters, uint8_t* out,
                     size_t out_size) const;

 private:
  std::vector<H5Z_filter_t> filters_;
  bool supported_ = true;
};

}  // namespace genie::data
