#include "genie/data/chunk_codec.h"

#include <lzf.h>
#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "genie/core/error.h"

namespace genie::data {
namespace {

// The filter as HDF5 calls it: returns the number of valid bytes in *buffer, 0 on failure. h5py stores the
// raw LZF stream and the chunk's decoded size in values[2].
size_t lzf_callback(unsigned flags, size_t num_values, const unsigned values[], size_t num_bytes,
                    size_t* buffer_size, void** buffer) {
  const bool decode = flags & H5Z_FLAG_REVERSE;
  const size_t capacity = decode ? (num_values >= 3 ? values[2] : 0) : num_bytes;
  if (capacity == 0 || num_bytes == 0) return 0;
  void* result = std::malloc(capacity);
  if (result == nullptr) return 0;
  const unsigned length =
      decode
          ? lzf_decompress(*buffer, static_cast<unsigned>(num_bytes), result, static_cast<unsigned>(capacity))
          : lzf_compress(*buffer, static_cast<unsigned>(num_bytes), result, static_cast<unsigned>(capacity));
  if (length == 0) {  // damaged, or not compressible: HDF5 then stores the chunk as it is
    std::free(result);
    return 0;
  }
  std::free(*buffer);
  *buffer = result;
  *buffer_size = capacity;
  return length;
}

// Writes the version and chunk size h5py's reader expects into the filter's values.
herr_t lzf_set_local(hid_t properties, hid_t type, hid_t) {
  hsize_t sizes[H5S_MAX_RANK];
  const int rank = H5Pget_chunk(properties, H5S_MAX_RANK, sizes);
  if (rank < 0) return -1;
  size_t bytes = H5Tget_size(type);
  for (int i = 0; i < rank; ++i) bytes *= sizes[i];
  if (bytes == 0 || bytes > 0xffffffffu) return -1;
  const unsigned values[3] = {4, LZF_VERSION, static_cast<unsigned>(bytes)};
  return H5Pmodify_filter(properties, lzf_filter_id, H5Z_FLAG_OPTIONAL, 3, values);
}

}  // namespace

void hdf5::register_lzf() {
  if (H5Zfilter_avail(lzf_filter_id) > 0) return;
  static const H5Z_class2_t filter = {H5Z_CLASS_T_VERS, lzf_filter_id, 1,           1, "lzf",
                                      nullptr,          lzf_set_local, lzf_callback};
  check(H5Zregister(&filter) >= 0, "the LZF filter cannot be registered with the HDF5 library");
}

ChunkCodec::ChunkCodec(hid_t creation_properties) {
  const int count = H5Pget_nfilters(creation_properties);
  int compressors = 0;
  for (int i = 0; i < count; ++i) {
    unsigned flags = 0;
    size_t num_values = 1;
    unsigned values[1] = {1};
    const auto id = H5Pget_filter2(creation_properties, i, &flags, &num_values, values, 0, nullptr, nullptr);
    // Shuffling elements of one byte is the identity, and frames are checked to be bytes.
    const bool shuffle = id == H5Z_FILTER_SHUFFLE && values[0] <= 1;
    const bool compressor = id == H5Z_FILTER_DEFLATE || id == lzf_filter_id;
    compressors += compressor;
    supported_ = supported_ && (shuffle || compressor);
    filters_.push_back(id);
  }
  unsigned options = 0;
  H5Pget_chunk_opts(creation_properties, &options);
  // Chunks at the edge that are stored unfiltered do not say so themselves.
  supported_ = supported_ && count >= 0 && compressors <= 1 && options == 0;
}

std::string ChunkCodec::decode(const uint8_t* stored, size_t size, uint32_t skipped_filters, uint8_t* out,
                               size_t out_size) const {
  for (size_t i = 0; i < filters_.size(); ++i) {
    if (filters_[i] == H5Z_FILTER_SHUFFLE || (skipped_filters >> std::min<size_t>(i, 31)) & 1) continue;
    size_t length = 0;
    if (filters_[i] == H5Z_FILTER_DEFLATE) {
      uLongf written = out_size;
      const int status = uncompress(out, &written, stored, size);
      if (status != Z_OK) return concat("its gzip data is damaged (zlib status ", status, ")");
      length = written;
    } else {
      length = lzf_decompress(stored, static_cast<unsigned>(size), out, static_cast<unsigned>(out_size));
      if (length == 0) return "its LZF data is damaged";
    }
    if (length != out_size) return concat("it decodes to ", length, " bytes instead of ", out_size);
    return {};
  }
  if (size != out_size) return concat("it holds ", size, " bytes instead of ", out_size);
  std::memcpy(out, stored, size);
  return {};
}

}  // namespace genie::data
