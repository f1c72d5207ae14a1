#include "genie/data/video_file.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "genie/core/error.h"
#include "genie/data/frame_reader.h"
#include "genie/data/hdf5_file.h"

namespace genie::data {

struct VideoFile::Impl {
  std::string path;
  int64_t num_frames = 0, height = 0, width = 0, num_actions = 0;
  double fps = 0;
  std::string env;
  std::vector<int64_t> episode_ends;
  at::Tensor actions;
  hdf5::Handle file;  // closed after the dataset inside the reader
  std::unique_ptr<FrameReader> reader;

  void open_frames();
  void read_attributes();
  void read_episode_ends();
  void read_actions();
};

void VideoFile::Impl::open_frames() {
  const std::string where = concat("data file '", path, "': ");
  auto dataset = hdf5::open_dataset(file.get(), path, "frames");
  check(static_cast<bool>(dataset), where, "has no dataset 'frames', it holds ",
        hdf5::list_objects(file.get()), ": write the frames as uint8 (N,H,W,3) under that name");
  const hdf5::Handle type(H5Dget_type(dataset.get()), H5Tclose);
  const auto size = hdf5::shape(dataset.get());
  const std::string type_name = hdf5::type_name(type.get());
  const std::string found = concat(where, "dataset 'frames' must be uint8 (N,H,W,3), found ", type_name, " ",
                                   hdf5::shape_name(size));
  check(type_name == "uint8", found, type_name.starts_with("float") ? ": scale to 0..255 and convert" : "",
        "; see docs/data_format.md");
  check(size.size() == 4, found, size.size() == 5 ? ": join the episodes along N and give episode_ends" : "",
        "; see docs/data_format.md");
  check(size[3] == 3, found,
        size[1] == 3 ? ": move the channels to the end" : ": colour images have three channels",
        "; see docs/data_format.md");
  check(size[0] > 0 && size[1] > 0 && size[2] > 0, found, ": there is nothing to read");
  check(size[1] <= 16384 && size[2] <= 16384, found, ": height and width may be at most 16384");
  num_frames = size[0];
  height = size[1];
  width = size[2];
  reader = std::make_unique<FrameReader>(std::move(dataset), path);
}

void VideoFile::Impl::read_attributes() {
  const std::string where = concat("data file '", path, "': attribute ");
  if (H5Aexists(file.get(), "fps") > 0) {
    fps = hdf5::number_attribute(file.get(), path, "fps", 0);
    check(std::isfinite(fps) && fps > 0, where, "'fps' must be a number above 0, found ", fps,
          ": correct it, or leave it out where the rate is not known");
  }
  env = hdf5::string_attribute(file.get(), path, "env");
  if (H5Aexists(file.get(), "num_actions") > 0) {
    const double count = hdf5::number_attribute(file.get(), path, "num_actions", 0);
    check(count >= 1 && count <= 32768 && count == std::floor(count), where,
          "'num_actions' must be a whole number in 1..32768, found ", count);
    num_actions = static_cast<int64_t>(count);
  }
}

void VideoFile::Impl::read_episode_ends() {
  const auto dataset = hdf5::open_dataset(file.get(), path, "episode_ends");
  if (!dataset) {
    episode_ends = {num_frames};
    return;
  }
  const std::string where = concat("data file '", path, "': dataset 'episode_ends' ");
  episode_ends = hdf5::read_integers(dataset.get(), path, "episode_ends");
  check(!episode_ends.empty(), where, "is empty: the last entry must be the number of frames, ", num_frames);
  int64_t previous = 0;
  for (size_t i = 0; i < episode_ends.size(); ++i) {
    check(episode_ends[i] > previous, where, "must rise strictly from above 0, found ", episode_ends[i],
          " after ", previous, " at entry ", i, ": each entry is one past an episode's last frame");
    check(episode_ends[i] <= num_frames, where, "has entry ", i, " = ", episode_ends[i],
          ", but there are only ", num_frames, " frames");
    previous = episode_ends[i];
  }
  check(previous == num_frames, where, "must end with the number of frames, ", num_frames, ", found ",
        previous, ": each entry is one past an episode's last frame");
}

void VideoFile::Impl::read_actions() {
  const auto dataset = hdf5::open_dataset(file.get(), path, "actions");
  if (!dataset) {
    num_actions = 0;
    return;
  }
  const std::string where = concat("data file '", path, "': dataset 'actions' ");
  const auto values = hdf5::read_integers(dataset.get(), path, "actions");
  check(static_cast<int64_t>(values.size()) == num_frames, where, "must have one entry a frame, ", num_frames,
        ", found ", values.size(), ": entry t led from frame t to t + 1, the last one is not used");
  const int64_t limit = num_actions > 0 ? num_actions : 32768;
  int64_t largest = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    check(values[i] >= 0 && values[i] < limit, where, "must hold values in 0..", limit - 1,
          num_actions > 0 ? " (attribute num_actions)" : "", ", found ", values[i], " at entry ", i);
    largest = std::max(largest, values[i]);
  }
  if (num_actions == 0) num_actions = largest + 1;
  actions = at::empty({num_frames}, at::kLong);
  std::copy(values.begin(), values.end(), actions.data_ptr<int64_t>());
}

VideoFile::VideoFile(const std::string& path) : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  const hdf5::Session session;
  impl_->file = hdf5::open_file(path);
  impl_->open_frames();
  impl_->read_attributes();
  impl_->read_episode_ends();
  impl_->read_actions();
}

VideoFile::~VideoFile() = default;

const std::string& VideoFile::path() const { return impl_->path; }
int64_t VideoFile::num_frames() const { return impl_->num_frames; }
int64_t VideoFile::height() const { return impl_->height; }
int64_t VideoFile::width() const { return impl_->width; }
double VideoFile::fps() const { return impl_->fps; }
const std::string& VideoFile::env() const { return impl_->env; }
const std::vector<int64_t>& VideoFile::episode_ends() const { return impl_->episode_ends; }
bool VideoFile::has_actions() const { return impl_->actions.defined(); }
int64_t VideoFile::num_actions() const { return impl_->num_actions; }
const at::Tensor& VideoFile::actions() const { return impl_->actions; }
size_t VideoFile::cached_bytes() const { return impl_->reader->cached_bytes(); }

at::Tensor VideoFile::read_frames(int64_t begin, int64_t count, int64_t stride) const {
  check(begin >= 0 && count >= 1 && stride >= 1 && begin < num_frames() &&
            count - 1 <= (num_frames() - 1 - begin) / stride,
        "read_frames(begin=", begin, ", count=", count, ", stride=", stride, ") lies outside the ",
        num_frames(), " frames of '", path(), "' (begin >= 0, count >= 1, stride >= 1)");
  auto frames = at::empty({count, height(), width(), 3}, at::kByte);
  impl_->reader->read(begin, count, stride, frames.data_ptr<uint8_t>());
  return frames;
}

}  // namespace genie::data
