#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "genie/core/error.h"
#include "genie/core/random.h"

extern "C" unsigned lzf_compress(const void* in, unsigned in_size, void* out, unsigned out_size);

namespace genie::data::testing {

/// An empty folder of the test's own, removed with it.
class DataTest : public ::testing::Test {
 protected:
  DataTest() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              concat("genie_", ::getpid(), "_", test->test_suite_name(), "_", test->name());
    std::filesystem::create_directories(folder_);
  }
  ~DataTest() override { std::filesystem::remove_all(folder_); }
  std::string file(const std::string& name = "video.h5") const { return (folder_ / name).string(); }

 private:
  std::filesystem::path folder_;
};

/// The message of the genie::Error that `action` throws.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

/// A pixel that differs between places but repeats enough to be compressed.
inline uint8_t pixel(int64_t i) { return static_cast<uint8_t>(splitmix64(i / 5) % 7 * 36); }

/// What a raw HDF5 file holds, right or wrong; written without any code of the data room.
struct FileSpec {
  std::vector<hsize_t> shape{20, 8, 10, 3};
  std::vector<hsize_t> chunk = {};  ///< contiguous where empty
  hid_t type = H5T_STD_U8LE;
  std::string name = "frames";
  bool gzip = false, shuffle = false, lzf = false, fletcher = false;
  std::optional<std::vector<int64_t>> episode_ends = {}, actions = {};
  hid_t ends_type = H5T_STD_I64LE, actions_type = H5T_STD_I32LE;
  std::optional<double> fps = {}, num_actions = {};
  std::string env = {};
  bool variable_env = false;
};

inline int64_t element_count(const std::vector<hsize_t>& shape) {
  int64_t count = 1;
  for (const auto size : shape) count *= static_cast<int64_t>(size);
  return count;
}

/// The frames of a file with valid frames.
inline at::Tensor expected_frames(const FileSpec& spec) {
  const std::vector<int64_t> shape(spec.shape.begin(), spec.shape.end());
  auto frames = at::empty(shape, at::kByte);
  for (int64_t i = 0; i < frames.numel(); ++i) frames.data_ptr<uint8_t>()[i] = pixel(i);
  return frames;
}

inline void write_attribute(hid_t file, const char* name, hid_t type, const void* value) {
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attribute, type, value);
  H5Aclose(attribute);
  H5Sclose(space);
}

inline void write_list(hid_t file, const char* name, hid_t type, const std::vector<int64_t>& values) {
  const hsize_t size = values.size();
  const hid_t space = H5Screate_simple(1, &size, nullptr);
  const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  H5Dwrite(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
  H5Dclose(dataset);
  H5Sclose(space);
}

/// One LZF chunk that covers rows [n, n + chunk) of the first dimension, as h5py stores it.
inline void write_lzf_chunks(hid_t dataset, const FileSpec& spec) {
  const int64_t row = element_count(spec.shape) / static_cast<int64_t>(spec.shape[0]);
  const int64_t bytes = row * static_cast<int64_t>(spec.chunk[0]);
  const auto frames = expected_frames(spec);
  for (hsize_t n = 0; n < spec.shape[0]; n += spec.chunk[0]) {
    std::vector<uint8_t> plain(bytes, 0), packed(bytes);
    const int64_t valid = std::min<int64_t>(bytes, frames.numel() - static_cast<int64_t>(n) * row);
    std::copy_n(frames.data_ptr<uint8_t>() + n * row, valid, plain.begin());
    const unsigned length = lzf_compress(plain.data(), bytes, packed.data(), bytes - 1);
    const hsize_t offset[4] = {n, 0, 0, 0};
    // As the filter itself does, a chunk that does not shrink is stored plain and marked so.
    H5Dwrite_chunk(dataset, H5P_DEFAULT, length == 0, offset, length ? length : bytes,
                   length ? packed.data() : plain.data());
  }
}

inline void write_file(const std::string& path, const FileSpec& spec) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
  if (!spec.chunk.empty()) H5Pset_chunk(properties, static_cast<int>(spec.chunk.size()), spec.chunk.data());
  if (spec.shuffle) H5Pset_shuffle(properties);
  if (spec.gzip) H5Pset_deflate(properties, 4);
  if (spec.lzf) {
    const unsigned values[3] = {4, 0x0105, static_cast<unsigned>(element_count(spec.chunk))};
    H5Pset_filter(properties, 32000, H5Z_FLAG_OPTIONAL, 3, values);
  }
  if (spec.fletcher) H5Pset_fletcher32(properties);
  const hid_t space = H5Screate_simple(static_cast<int>(spec.shape.size()), spec.shape.data(), nullptr);
  const hid_t dataset =
      H5Dcreate2(file, spec.name.c_str(), spec.type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
  ASSERT_GE(dataset, 0);
  if (spec.lzf) {
    write_lzf_chunks(dataset, spec);
  } else if (element_count(spec.shape) > 0) {
    const auto frames = expected_frames(spec);
    H5Dwrite(dataset, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, frames.data_ptr<uint8_t>());
  }
  H5Dclose(dataset);
  H5Sclose(space);
  H5Pclose(properties);
  if (spec.episode_ends) write_list(file, "episode_ends", spec.ends_type, *spec.episode_ends);
  if (spec.actions) write_list(file, "actions", spec.actions_type, *spec.actions);
  if (spec.fps) write_attribute(file, "fps", H5T_NATIVE_DOUBLE, &*spec.fps);
  if (spec.num_actions) write_attribute(file, "num_actions", H5T_NATIVE_DOUBLE, &*spec.num_actions);
  if (!spec.env.empty()) {
    const hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, spec.variable_env ? H5T_VARIABLE : spec.env.size());
    const char* start = spec.env.c_str();
    write_attribute(file, "env", text, spec.variable_env ? static_cast<const void*>(&start) : start);
    H5Tclose(text);
  }
  H5Fclose(file);
}

/// Overwrites bytes of a file.
inline void damage(const std::string& path, int64_t offset, const std::vector<uint8_t>& bytes) {
  std::fstream stream(path, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekp(offset);
  stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

struct StoredChunk {
  int64_t address = 0, size = 0;
};

/// Where the n-th chunk of `frames` lies in the file, which nothing may have open.
inline StoredChunk find_chunk(const std::string& path, hsize_t n) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t dataset = H5Dopen2(file, "frames", H5P_DEFAULT);
  hsize_t offset[4], size = 0;
  unsigned mask = 0;
  haddr_t address = 0;
  const hid_t space = H5Dget_space(dataset);
  H5Dget_chunk_info(dataset, space, n, offset, &mask, &address, &size);
  H5Sclose(space);
  H5Dclose(dataset);
  H5Fclose(file);
  return {static_cast<int64_t>(address), static_cast<int64_t>(size)};
}

}  // namespace genie::data::testing
