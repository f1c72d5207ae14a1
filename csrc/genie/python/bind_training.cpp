#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "genie/config/config.h"
#include "genie/core/memory.h"
#include "genie/python/bindings.h"
#include "genie/python/no_gil.h"
#include "genie/training/checkpoint.h"
#include "genie/training/jepa_phase.h"
#include "genie/training/run.h"

namespace genie::python {
namespace {

namespace py = pybind11;
using namespace py::literals;
using training::Metrics;
using training::Outcome;

/// Python's side of a training that runs without the GIL: it is taken for each callback, and every 100 ms to
/// let Python see signals. What Python raises stops the training, which saves first, and is raised again
/// after it.
class PythonHooks {
 public:
  explicit PythonHooks(py::object callback) : callback_(std::move(callback)) {}

  training::TrainerHooks hooks(bool show_progress) {
    training::TrainerHooks hooks;
    hooks.show_progress = show_progress;
    hooks.should_stop = [this] { return should_stop(); };
    if (!callback_.is_none())
      hooks.on_metrics = [this](const std::string& phase, int64_t step, const Metrics& metrics) {
        report(phase, step, metrics);
      };
    return hooks;
  }

  void raise() {
    if (raised_) throw py::error_already_set(*raised_);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kInterval{100};

  bool should_stop() {
    if (raised_) return true;
    const auto now = Clock::now();
    if (now - checked_ < kInterval) return false;
    checked_ = now;
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) raised_.emplace();
    return raised_.has_value();
  }

  void report(const std::string& phase, int64_t step, const Metrics& metrics) {
    if (raised_) return;
    const py::gil_scoped_acquire gil;
    try {
      py::dict line("phase"_a = phase, "step"_a = step);
      for (const auto& [name, value] : metrics) line[py::str(name)] = value;
      callback_(line);
    } catch (const py::error_already_set& error) {
      raised_.emplace(error);
    }
  }

  py::object callback_;
  std::optional<py::error_already_set> raised_;
  Clock::time_point checked_{};
};

/// False where another process was asked to stop.
bool train(const config::Config& config, const std::string& out, const std::string& phase, bool resume,
           const py::object& on_metrics, bool show_progress, const std::string& process_group) {
  PythonHooks python(on_metrics);
  Outcome outcome = Outcome::finished;
  {
    const config::Config own = config;  // Python may change its own meanwhile
    const training::TrainerHooks hooks = python.hooks(show_progress);
    const py::gil_scoped_release no_gil;
    outcome = training::train(own, out, phase, resume, hooks, process_group);
  }
  python.raise();
  return outcome == Outcome::finished;
}

/// Checks every file against the manifest first.
py::dict describe_checkpoint(const std::string& path) {
  std::map<std::string, training::SafetensorsHeader> headers;
  training::TrainState state;
  {
    const py::gil_scoped_release no_gil;
    training::verify_checkpoint(path);
    for (const char* name : {"model", "optimizer"})
      headers[name] = training::read_safetensors_header(path + "/" + name + ".safetensors");
    constexpr uint64_t kMaxState = uint64_t{1} << 20;
    state = training::parse_train_state(read_text(path + "/state.json", kMaxState), path + "/state.json");
  }
  py::dict result("phase"_a = state.phase, "step"_a = state.step, "seed"_a = state.seed,
                  "config_hash"_a = state.config_hash, "numbers"_a = state.numbers);
  for (const auto& [file, header] : headers) {
    py::list tensors;
    for (const auto& [name, info] : header.tensors)
      tensors.append(py::make_tuple(name, info.dtype, info.shape, info.end - info.begin));
    result[py::str(file)] = tensors;
  }
  return result;
}

}  // namespace

void bind_training(py::module_& m) {
  m.def("train", &train, "config"_a, "out"_a, "phase"_a = "all", "resume"_a = false,
        "on_metrics"_a = py::none(), "show_progress"_a = true, "process_group"_a = "",
        "See genie_cpp.training.train.");
  m.def(
      "load_genie",
      [](const std::string& run_dir, bool allow_untrained) {
        std::vector<std::string> untrained;
        models::Genie genie{nullptr};
        {
          const py::gil_scoped_release no_gil;
          genie = training::load_genie(run_dir, allow_untrained, &untrained);
        }
        return py::make_tuple(genie.ptr(), untrained);
      },
      "run_dir"_a, "allow_untrained"_a = false,
      "(Genie, names of the models that are not trained): each model from its newest checkpoint.");
  m.def(
      "save_genie",
      [](const std::shared_ptr<models::GenieImpl>& model, const std::string& run_dir) {
        models::Genie genie(model);
        training::save_genie(genie, run_dir);
      },
      "genie"_a, "run_dir"_a, NoGil(), "Writes the models as a run directory.");
  m.def("describe_checkpoint", &describe_checkpoint, "path"_a,
        "What a checkpoint holds: its state, and name, dtype, shape and bytes of the tensors of model and "
        "optimizer. An error where a file is damaged.");
  m.def("phase_names", &training::phase_names, "config"_a,
        "The phases of a configuration, in the order they are trained.");
  m.def("load_jepa_weights", &training::load_jepa_weights, "run_dir"_a, NoGil(),
        "Weights by name of the newest checkpoint of phase jepa.");
  m.def("keep_freed_memory", &keep_freed_memory, "keep"_a, "See genie_cpp.training.keep_freed_memory.");
  m.def("dry_run", &training::dry_run, "config"_a, NoGil(),
        "What a run will take: parameters a model, memory a phase.");
}

}  // namespace genie::python
