#include "genie/data/frame_reader.h"

#include <algorithm>
#include <cstring>

#include "genie/core/error.h"

namespace genie::data {
namespace {

constexpr size_t cache_capacity = size_t{64} << 20;

}  // namespace

FrameReader::FrameReader(hdf5::Handle dataset, const std::string& path)
    : dataset_(std::move(dataset)), path_(path), cache_(std::make_unique<ChunkCache>(cache_capacity)) {
  const auto sizes = hdf5::shape(dataset_.get());
  std::copy_n(sizes.begin(), 4, shape_.begin());
  hdf5::Handle properties(H5Dget_create_plist(dataset_.get()), H5Pclose);
  const auto layout = H5Pget_layout(properties.get());
  check(layout != H5D_VIRTUAL, "data file '", path_,
        "': 'frames' is a virtual dataset, whose missing sources would ",
        "read as black frames: copy the frames into one file");
  for (int i = 0; i < H5Pget_nfilters(properties.get()); ++i) {
    unsigned flags = 0;
    size_t num_values = 0;
    const auto id = H5Pget_filter2(properties.get(), i, &flags, &num_values, nullptr, 0, nullptr, nullptr);
    check(H5Zfilter_avail(id) > 0, "data file '", path_, "': 'frames' is compressed with HDF5 filter ", id,
          ", which is not available here: write it with gzip or lzf");
  }
  if (layout != H5D_CHUNKED) return;
  codec_ = std::make_unique<ChunkCodec>(properties.get());
  if (!codec_->supported()) return;
  hsize_t chunk[4] = {};
  check(H5Pget_chunk(properties.get(), 4, chunk) == 4, "data file '", path_,
        "': chunks of 'frames' are damaged");
  std::copy_n(chunk, 4, chunk_shape_.begin());
}

FrameReader::~FrameReader() = default;

void FrameReader::throw_damaged(int64_t frame, const std::string& reason) const {
  throw Error(concat("data file '", path_, "': 'frames' cannot be read at frame ", frame,
                     ", the file is damaged: copy or record it again; ", reason));
}

void FrameReader::read(int64_t begin, int64_t count, int64_t stride, uint8_t* out) const {
  if (chunk_shape_[0] == 0) {
    read_through_library({begin, 0, 0, 0}, {count, shape_[1], shape_[2], shape_[3]}, stride, out);
  } else {
    read_chunks(begin, count, stride, out);
  }
}

void FrameReader::read_through_library(const Index& begin, const Index& count, int64_t stride,
                                       uint8_t* out) const {
  const hdf5::Session session;
  hsize_t first[4], size[4];
  std::copy_n(begin.begin(), 4, first);
  std::copy_n(count.begin(), 4, size);
  const hsize_t step[4] = {static_cast<hsize_t>(stride), 1, 1, 1};
  const hdf5::Handle file_space(H5Dget_space(dataset_.get()), H5Sclose);
  const hdf5::Handle memory_space(H5Screate_simple(4, size, nullptr), H5Sclose);
  if (H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, first, step, size, nullptr) < 0 ||
      H5Dread(dataset_.get(), H5T_NATIVE_UINT8, memory_space.get(), file_space.get(), H5P_DEFAULT, out) < 0) {
    throw_damaged(begin[0], concat("HDF5 says: ", hdf5::last_error()));
  }
}

ChunkCache::Bytes FrameReader::chunk(const Index& index) const {
  int64_t key = 0;
  for (int d = 0; d < 4; ++d) key = key * ((shape_[d] + chunk_shape_[d] - 1) / chunk_shape_[d]) + index[d];
  if (auto found = cache_->find(key)) return found;

  Index begin, valid;
  hsize_t offset[4];
  size_t bytes = 1;
  for (int d = 0; d < 4; ++d) {
    begin[d] = index[d] * chunk_shape_[d];
    valid[d] = std::min(chunk_shape_[d], shape_[d] - begin[d]);
    offset[d] = begin[d];
    bytes *= chunk_shape_[d];
  }
  std::vector<uint8_t> stored;
  uint32_t skipped = 0;
  bool allocated = true;
  {
    const hdf5::Session session;
    unsigned mask = 0;
    haddr_t address = HADDR_UNDEF;
    hsize_t size = 0;
    if (H5Dget_chunk_info_by_coord(dataset_.get(), offset, &mask, &address, &size) < 0) {
      throw_damaged(begin[0], concat("HDF5 says: ", hdf5::last_error()));
    }
    allocated = address != HADDR_UNDEF;
    if (allocated) {
      // A damaged index may claim any size; no filter here makes a chunk much larger than it is.
      if (size == 0 || size > 2 * bytes + 4096)
        throw_damaged(begin[0], concat("a chunk claims ", size, " bytes"));
      stored.resize(size);
      if (H5Dread_chunk(dataset_.get(), H5P_DEFAULT, offset, &skipped, stored.data()) < 0) {
        throw_damaged(begin[0], concat("HDF5 says: ", hdf5::last_error()));
      }
    }
  }
  auto decoded = std::make_shared<std::vector<uint8_t>>(bytes);
  if (allocated) {
    const auto problem = codec_->decode(stored.data(), stored.size(), skipped, decoded->data(), bytes);
    if (!problem.empty()) throw_damaged(begin[0], problem);
  } else {
    // Never written: HDF5 knows the fill value. The valid part arrives packed and is moved to its rows.
    std::vector<uint8_t> packed(valid[0] * valid[1] * valid[2] * valid[3]);
    read_through_library(begin, valid, 1, packed.data());
    const uint8_t* from = packed.data();
    for (int64_t n = 0; n < valid[0]; ++n)
      for (int64_t y = 0; y < valid[1]; ++y)
        for (int64_t x = 0; x < valid[2]; ++x, from += valid[3])
          std::memcpy(&(*decoded)[((n * chunk_shape_[1] + y) * chunk_shape_[2] + x) * chunk_shape_[3]], from,
                      valid[3]);
  }
  cache_->insert(key, decoded);
  return decoded;
}

void FrameReader::read_chunks(int64_t begin, int64_t count, int64_t stride, uint8_t* out) const {
  const auto [frames, height, width, channels] = shape_;
  const auto [size_n, size_y, size_x, size_c] = chunk_shape_;
  for (int64_t i = 0; i < count;) {
    const int64_t row = (begin + i * stride) / size_n;
    int64_t end = i;  // output frames [i, end) lie in this row of chunks
    while (end < count && (begin + end * stride) / size_n == row) ++end;
    for (int64_t y = 0; y < height; y += size_y) {
      for (int64_t x = 0; x < width; x += size_x) {
        for (int64_t c = 0; c < channels; c += size_c) {
          const auto bytes = chunk({row, y / size_y, x / size_x, c / size_c});
          const int64_t rows = std::min(size_y, height - y), columns = std::min(size_x, width - x);
          const int64_t depth = std::min(size_c, channels - c);
          for (int64_t f = i; f < end; ++f) {
            const uint8_t* from =
                bytes->data() + (begin + f * stride - row * size_n) * size_y * size_x * size_c;
            uint8_t* to = out + ((f * height + y) * width + x) * channels + c;
            for (int64_t r = 0; r < rows; ++r, from += size_x * size_c, to += width * channels) {
              if (depth == channels && size_c == channels) {
                std::memcpy(to, from, columns * channels);
                continue;
              }
              for (int64_t p = 0; p < columns; ++p)
                for (int64_t d = 0; d < depth; ++d) to[p * channels + d] = from[p * size_c + d];
            }
          }
        }
      }
    }
    i = end;
  }
}

}  // namespace genie::data
