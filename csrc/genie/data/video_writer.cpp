#include "genie/data/video_writer.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <vector>

#include "genie/core/error.h"
#include "genie/data/hdf5_file.h"

namespace genie::data {

struct VideoWriter::Impl {
  std::string path, partial;
  int64_t height = 0, width = 0, chunk_frames = 0, num_actions = 0;
  int64_t stored = 0;            ///< frames in the dataset
  std::vector<uint8_t> waiting;  ///< frames of a chunk that is not full yet: each chunk is compressed once
  std::vector<int32_t> actions;
  std::vector<int64_t> episode_ends;
  bool with_actions = false, open = false;
  hdf5::Handle file, frames;

  ~Impl() { discard(); }
  void discard();
  int64_t frame_bytes() const { return height * width * 3; }
  int64_t num_frames() const { return stored + static_cast<int64_t>(waiting.size()) / frame_bytes(); }
  void require(bool succeeded) const {
    if (!succeeded) throw Error(concat("cannot write '", partial, "': HDF5 says: ", hdf5::last_error()));
  }
  void create(const VideoWriterOptions& options);
  void write_attribute(const char* name, hid_t type, const void* value);
  template <class T>
  void write_vector(const char* name, hid_t type, const std::vector<T>& values);
  void store(int64_t count);
};

void VideoWriter::Impl::discard() {
  if (!open) return;
  open = false;
  frames.reset();
  file.reset();
  ::unlink(partial.c_str());
}

void VideoWriter::Impl::write_attribute(const char* name, hid_t type, const void* value) {
  const hdf5::Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const hdf5::Handle attribute(H5Acreate2(file.get(), name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                               H5Aclose);
  require(static_cast<bool>(attribute) && H5Awrite(attribute.get(), type, value) >= 0);
}

template <class T>
void VideoWriter::Impl::write_vector(const char* name, hid_t type, const std::vector<T>& values) {
  const hsize_t size = values.size();
  const hdf5::Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose);
  const hdf5::Handle dataset(
      H5Dcreate2(file.get(), name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose);
  require(static_cast<bool>(dataset) &&
          H5Dwrite(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0);
}

void VideoWriter::Impl::create(const VideoWriterOptions& options) {
  const auto folder = std::filesystem::path(path).parent_path();
  check(folder.empty() || std::filesystem::is_directory(folder), "cannot write '", path, "': the folder '",
        folder.string(), "' does not exist, make it first");
  check(!std::filesystem::is_directory(path), "cannot write '", path, "': a directory has that name");
  const hdf5::Session session;
  file = hdf5::Handle(H5Fcreate(partial.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
  require(static_cast<bool>(file));
  open = true;
  const hdf5::Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  const hsize_t size[4] = {0, static_cast<hsize_t>(height), static_cast<hsize_t>(width), 3};
  const hsize_t limit[4] = {H5S_UNLIMITED, size[1], size[2], size[3]};
  const hsize_t chunk[4] = {static_cast<hsize_t>(chunk_frames), size[1], size[2], size[3]};
  const hdf5::Handle space(H5Screate_simple(4, size, limit), H5Sclose);
  require(H5Pset_chunk(properties.get(), 4, chunk) >= 0 && H5Pset_deflate(properties.get(), 4) >= 0);
  frames = hdf5::Handle(
      H5Dcreate2(file.get(), "frames", H5T_STD_U8LE, space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
      H5Dclose);
  require(static_cast<bool>(frames));
  if (options.fps > 0) write_attribute("fps", H5T_NATIVE_DOUBLE, &options.fps);
  if (options.num_actions > 0) write_attribute("num_actions", H5T_NATIVE_INT64, &options.num_actions);
  if (!options.env.empty()) {
    const hdf5::Handle text(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(text.get(), options.env.size() + 1);
    H5Tset_cset(text.get(), H5T_CSET_UTF8);
    write_attribute("env", text.get(), options.env.c_str());
  }
}

// Moves the first `count` waiting frames into the dataset.
void VideoWriter::Impl::store(int64_t count) {
  if (count == 0) return;
  const hdf5::Session session;
  const hsize_t size[4] = {static_cast<hsize_t>(count), static_cast<hsize_t>(height),
                           static_cast<hsize_t>(width), 3};
  const hsize_t total[4] = {static_cast<hsize_t>(stored + count), size[1], size[2], 3};
  const hsize_t first[4] = {static_cast<hsize_t>(stored), 0, 0, 0};
  require(H5Dset_extent(frames.get(), total) >= 0);
  const hdf5::Handle file_space(H5Dget_space(frames.get()), H5Sclose);
  const hdf5::Handle memory_space(H5Screate_simple(4, size, nullptr), H5Sclose);
  require(H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, first, nullptr, size, nullptr) >= 0 &&
          H5Dwrite(frames.get(), H5T_NATIVE_UINT8, memory_space.get(), file_space.get(), H5P_DEFAULT,
                   waiting.data()) >= 0);
  stored += count;
  waiting.erase(waiting.begin(), waiting.begin() + count * frame_bytes());
}

VideoWriter::VideoWriter(const std::string& path, int64_t height, int64_t width,
                         const VideoWriterOptions& options)
    : impl_(std::make_unique<Impl>()) {
  check(height >= 1 && width >= 1 && height <= 16384 && width <= 16384, "cannot write '", path,
        "': height and width must be in 1..16384, found ", height, " and ", width);
  check(std::isfinite(options.fps) && options.fps >= 0, "cannot write '", path,
        "': fps must be at least 0, found ", options.fps);
  check(options.num_actions >= 0 && options.num_actions <= 32768, "cannot write '", path,
        "': num_actions must be in 0..32768, found ", options.num_actions);
  impl_->path = path;
  impl_->partial = path + ".partial";
  impl_->height = height;
  impl_->width = width;
  impl_->num_actions = options.num_actions;
  impl_->chunk_frames = std::clamp<int64_t>((int64_t{1} << 20) / impl_->frame_bytes(), 1, 16);
  impl_->create(options);
}

VideoWriter::~VideoWriter() = default;

const std::string& VideoWriter::path() const { return impl_->path; }
int64_t VideoWriter::num_frames() const { return impl_->num_frames(); }

void VideoWriter::append(const at::Tensor& frames, const at::Tensor& actions) {
  auto& w = *impl_;
  check(w.open, "'", w.path, "' is closed: nothing can be appended");
  check(frames.defined() && frames.scalar_type() == at::kByte && frames.dim() == 4 &&
            frames.size(1) == w.height && frames.size(2) == w.width && frames.size(3) == 3,
        "frames for '", w.path, "' must be uint8 (n,", w.height, ",", w.width, ",3), found ",
        frames.defined() ? concat(frames.scalar_type(), " ", frames.sizes()) : "none");
  const int64_t count = frames.size(0);
  if (count == 0) return;
  check(w.num_frames() == 0 || w.with_actions == actions.defined(), "'", w.path,
        "' must get actions in every append or in none");
  std::vector<int32_t> values;
  if (actions.defined()) {
    check(at::isIntegralType(actions.scalar_type(), /*includeBool=*/false) && actions.dim() == 1 &&
              actions.size(0) == count,
          "actions for '", w.path, "' must be integers (", count, "), one a frame, found ",
          actions.scalar_type(), " ", actions.sizes());
    const auto list = actions.to(at::kCPU, at::kLong).contiguous();
    const int64_t limit = w.num_actions > 0 ? w.num_actions : 32768;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t value = list.const_data_ptr<int64_t>()[i];
      check(value >= 0 && value < limit, "actions for '", w.path, "' must be in 0..", limit - 1, ", found ",
            value);
      values.push_back(static_cast<int32_t>(value));
    }
  }
  w.with_actions = actions.defined();
  w.actions.insert(w.actions.end(), values.begin(), values.end());
  const auto bytes = frames.to(at::kCPU).contiguous();
  const auto* data = bytes.const_data_ptr<uint8_t>();
  for (int64_t done = 0; done < count;) {
    const int64_t space = w.chunk_frames - static_cast<int64_t>(w.waiting.size()) / w.frame_bytes();
    const int64_t take = std::min(space, count - done);
    w.waiting.insert(w.waiting.end(), data + done * w.frame_bytes(), data + (done + take) * w.frame_bytes());
    done += take;
    if (take == space) w.store(w.chunk_frames);
  }
}

void VideoWriter::discard() { impl_->discard(); }

void VideoWriter::end_episode() {
  auto& w = *impl_;
  check(w.open, "'", w.path, "' is closed: no episode can end");
  const int64_t end = w.num_frames();
  if (end > (w.episode_ends.empty() ? 0 : w.episode_ends.back())) w.episode_ends.push_back(end);
}

void VideoWriter::close() {
  auto& w = *impl_;
  if (!w.open) return;
  check(w.num_frames() > 0, "'", w.path, "' has no frame: nothing to write");
  end_episode();
  w.store(static_cast<int64_t>(w.waiting.size()) / w.frame_bytes());
  {
    const hdf5::Session session;
    w.write_vector("episode_ends", H5T_NATIVE_INT64, w.episode_ends);
    if (w.with_actions) w.write_vector("actions", H5T_NATIVE_INT32, w.actions);
    w.require(H5Fflush(w.file.get(), H5F_SCOPE_GLOBAL) >= 0);
    w.frames.reset();
    w.file.reset();
  }
  // On the disk before the name appears, so that a power cut leaves no empty file under it either.
  const int descriptor = ::open(w.partial.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = descriptor >= 0 && ::fsync(descriptor) == 0;
  const int reason = errno;
  if (descriptor >= 0) ::close(descriptor);
  check(synced, "cannot write '", w.partial, "': ", std::strerror(reason));
  check(std::rename(w.partial.c_str(), w.path.c_str()) == 0, "cannot give '", w.partial, "' the name '",
        w.path, "': ", std::strerror(errno));
  w.open = false;
}

}  // namespace genie::data
