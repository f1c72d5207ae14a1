#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <memory>
#include <optional>
#include <string>

#include "genie/config/config.h"
#include "genie/core/error.h"
#include "genie/data/clip_dataset.h"
#include "genie/data/loader.h"
#include "genie/data/synthetic_world.h"
#include "genie/data/video_file.h"
#include "genie/data/video_writer.h"
#include "genie/python/bindings.h"

namespace genie::python {
namespace {

namespace py = pybind11;
using namespace py::literals;
using namespace genie::data;

// The GIL is released while the core reads, decodes or waits.
using NoGil = py::call_guard<py::gil_scoped_release>;

std::optional<at::Tensor> optional_tensor(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

Split parse_split(const std::string& name) {
  if (name == "training") return Split::training;
  if (name == "validation") return Split::validation;
  check(name == "all", "split must be 'training', 'validation' or 'all', found '", name, "'");
  return Split::all;
}

/// The data section from its own YAML: indented below a key, it is a whole configuration.
config::DataConfig parse_data_section(const std::string& yaml) {
  std::string text = "data:\n  ";
  for (const char c : yaml) text += c == '\n' ? std::string("\n  ") : std::string(1, c);
  return config::parse_config(text + "\n", "data section").data;
}

std::shared_ptr<ClipDataset> make_dataset(const std::shared_ptr<VideoFile>& file,
                                          const config::DataConfig& config, const std::string& split) {
  const py::gil_scoped_release no_gil;
  return std::make_shared<ClipDataset>(file, config, parse_split(split));
}

void bind_video_file(py::module_& m) {
  py::class_<VideoFile, std::shared_ptr<VideoFile>>(
      m, "VideoFile",
      "An HDF5 file of recorded video (docs/data_format.md). Opening checks the whole layout; a GenieError "
      "names the "
      "file, the dataset, what was expected and what was found. Reading is thread-safe.")
      .def(py::init<const std::string&>(), "path"_a, NoGil())
      .def_property_readonly("path", &VideoFile::path)
      .def_property_readonly("num_frames", &VideoFile::num_frames)
      .def_property_readonly("height", &VideoFile::height, "pixels")
      .def_property_readonly("width", &VideoFile::width, "pixels")
      .def_property_readonly("fps", &VideoFile::fps, "frames a second; 0 where the file does not say")
      .def_property_readonly("env", &VideoFile::env, "'' where the file does not say")
      .def_property_readonly("episode_ends", &VideoFile::episode_ends, "one past each episode's last frame")
      .def_property_readonly("has_actions", &VideoFile::has_actions)
      .def_property_readonly("num_actions", &VideoFile::num_actions,
                             "the attribute, else 1 + the largest action; 0 without actions")
      .def_property_readonly(
          "actions",
          // A copy: the file's own are shared with every clip read from it.
          [](const VideoFile& file) {
            return file.has_actions() ? optional_tensor(file.actions().clone()) : std::nullopt;
          },
          "int64 (N), a copy: entry t led from frame t to t + 1; None without actions")
      .def("read_frames", &VideoFile::read_frames, "begin"_a, "count"_a, "stride"_a = 1, NoGil(),
           "Frames begin, begin + stride, ... as uint8 (count,H,W,3). Only the chunks they lie in are "
           "decoded.")
      .def("__len__", &VideoFile::num_frames)
      .def("__repr__", [](const VideoFile& file) {
        return concat("VideoFile('", file.path(), "', ", file.num_frames(), " frames of ", file.height(), "x",
                      file.width(), ", ", file.episode_ends().size(), " episodes, ", file.num_actions(),
                      " actions)");
      });
}

void bind_clip_dataset(py::module_& m) {
  py::class_<ClipDataset, std::shared_ptr<ClipDataset>>(
      m, "ClipDataset",
      "All clips of T frames of a file's split: windows inside one episode, at every start frame. Training "
      "and "
      "validation never share a frame. `config` is a Config (its data section counts) or the YAML of a data "
      "section; "
      "`split` is 'training', 'validation' or 'all'.")
      .def(py::init(
               [](const std::shared_ptr<VideoFile>& file, const std::string& yaml, const std::string& split) {
                 return make_dataset(file, parse_data_section(yaml), split);
               }),
           "file"_a, "config"_a, "split"_a = "all")
      .def(py::init([](const std::shared_ptr<VideoFile>& file, const config::Config& config,
                       const std::string& split) { return make_dataset(file, config.data, split); }),
           "file"_a, "config"_a, "split"_a = "all")
      .def("__len__", &ClipDataset::size)
      .def(
          "get",
          [](const ClipDataset& dataset, int64_t index, uint64_t augmentation_seed) {
            Clip clip;
            {
              const py::gil_scoped_release no_gil;
              clip = dataset.get(index, augmentation_seed);
            }
            return py::make_tuple(clip.video, optional_tensor(clip.actions));
          },
          "index"_a, "augmentation_seed"_a = 0,
          "(video uint8 (T,height,width,3), actions int64 (T-1) or None). Random crop and flip are drawn "
          "from the "
          "seed; 0 leaves them out.")
      .def("first_frame", &ClipDataset::first_frame, "index"_a, "The clip's first frame in the file.")
      .def_property_readonly("stride", &ClipDataset::stride,
                             "recorded frames from one frame of a clip to the next")
      .def_property_readonly(
          "filter_report",
          [](const ClipDataset& dataset) {
            const auto& report = dataset.filter_report();
            return py::dict("kept"_a = report.kept, "still"_a = report.still, "cut"_a = report.cut,
                            "black"_a = report.black, "classified"_a = report.classified);
          },
          "clips kept and clips dropped, by the first reason that applied (black, cut, still, classified)")
      .def("spread", &ClipDataset::spread, "count"_a,
           "Indices of up to `count` clips spread evenly over the split, for validation.");
}

void bind_loader(py::module_& m) {
  py::class_<Loader>(m, "Loader",
                     "Endless batches of clips in a seeded random order, read ahead by threads. The order "
                     "depends on the seed and the "
                     "position alone, not on the number of workers; `batch_size` is a process's.")
      .def(py::init([](const std::shared_ptr<ClipDataset>& dataset, int64_t batch_size, uint64_t seed,
                       int64_t rank, int64_t world_size, int64_t num_workers, int64_t prefetch, bool augment,
                       int64_t position) {
             return std::make_unique<Loader>(
                 dataset, LoaderOptions{batch_size, seed, rank, world_size, num_workers, prefetch, augment},
                 position);
           }),
           "dataset"_a, py::kw_only(), "batch_size"_a = 4, "seed"_a = 0, "rank"_a = 0, "world_size"_a = 1,
           "num_workers"_a = 2, "prefetch"_a = 4, "augment"_a = true, "position"_a = 0, NoGil())
      .def(
          "next",
          [](Loader& loader) {
            Batch batch;
            {
              const py::gil_scoped_release no_gil;
              batch = loader.next();
            }
            return py::dict("video"_a = batch.video, "actions"_a = optional_tensor(batch.actions),
                            "indices"_a = batch.indices, "first_sample"_a = batch.first_sample);
          },
          "The next batch: video uint8 (B,T,H,W,3), actions int64 (B,T-1) or None, indices int64 (B) of the "
          "clips, "
          "first_sample the global number of its first sample.")
      .def_property_readonly("position", &Loader::position,
                             "batches handed out; a Loader made with it continues there")
      .def_property_readonly("wait_seconds", &Loader::wait_seconds, "time next() has spent waiting");
}

void bind_video_writer(py::module_& m) {
  py::class_<VideoWriter>(m, "VideoWriter",
                          "Writes a file that VideoFile reads. It grows as PATH.partial and takes its name "
                          "when close() has finished. In a "
                          "with statement, an exception discards it.")
      .def(py::init([](const std::string& path, int64_t height, int64_t width, double fps,
                       const std::string& env, int64_t num_actions) {
             return std::make_unique<VideoWriter>(path, height, width,
                                                  VideoWriterOptions{fps, env, num_actions});
           }),
           "path"_a, "height"_a, "width"_a, py::kw_only(), "fps"_a = 0.0, "env"_a = "", "num_actions"_a = 0,
           NoGil())
      .def(
          "append",
          [](VideoWriter& writer, const at::Tensor& frames, const std::optional<at::Tensor>& actions) {
            writer.append(frames, actions.value_or(at::Tensor()));
          },
          "frames"_a, "actions"_a = py::none(), NoGil(),
          "Adds frames uint8 (n,H,W,3) and, in every call or in none, actions (n) in 0..32767: entry t led "
          "from frame t "
          "to t + 1.")
      .def("end_episode", &VideoWriter::end_episode, "The next frame begins a new episode.")
      .def("close", &VideoWriter::close, NoGil(), "Completes the file and gives it its name.")
      .def_property_readonly("path", &VideoWriter::path)
      .def_property_readonly("num_frames", &VideoWriter::num_frames)
      .def("__enter__", [](py::object self) { return self; })
      .def("__exit__", [](VideoWriter& writer, const py::object& type, const py::object&, const py::object&) {
        const bool failed = !type.is_none();
        const py::gil_scoped_release no_gil;
        failed ? writer.discard() : writer.close();
      });
}

}  // namespace

void bind_data(py::module_& m) {
  bind_video_file(m);
  bind_clip_dataset(m);
  bind_loader(m);
  bind_video_writer(m);
  m.def("write_synthetic_world", &write_synthetic_world, "path"_a, "num_frames"_a = 512, "height"_a = 64,
        "width"_a = 64, "episode_length"_a = 64, "seed"_a = 0, NoGil(),
        "Writes a small world to try things on: a sprite with gravity and platforms, 5 actions (nothing, "
        "left, right, "
        "up, down), 15 frames a second.");
}

}  // namespace genie::python
