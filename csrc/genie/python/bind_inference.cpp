#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "genie/config/config.h"
#include "genie/inference/session_file.h"
#include "genie/inference/world_session.h"
#include "genie/models/genie.h"
#include "genie/python/bindings.h"
#include "genie/python/no_gil.h"
#include "genie/python/sampling.h"

namespace genie::python {
namespace {

namespace py = pybind11;
using namespace py::literals;
using inference::WorldSession;
using models::GenieImpl;

constexpr const char* kBatched = "batched";

models::Genie holder(const std::shared_ptr<GenieImpl>& genie) { return models::Genie(genie); }

}  // namespace

void bind_inference(py::module_& m) {
  py::class_<WorldSession>(m, "WorldSession", py::module_local())
      .def(py::init([](const std::shared_ptr<GenieImpl>& genie, const config::Config& config,
                       const at::Tensor& prompt, const at::Tensor& actions, uint64_t seed,
                       std::optional<int64_t> steps, std::optional<double> temperature,
                       std::optional<std::string> schedule, std::optional<std::string> unmasking,
                       std::optional<int64_t> top_k, std::optional<double> top_p) {
             const Sampling sampling{steps, top_k, temperature, top_p, schedule, unmasking};
             return std::make_unique<WorldSession>(holder(genie), prompt, actions, sampling.over(config),
                                                   seed);
           }),
           "genie"_a, "config"_a, "prompt_tokens"_a, "actions"_a, "seed"_a = 0, py::kw_only(),
           "steps"_a = py::none(), "temperature"_a = py::none(), "schedule"_a = py::none(),
           "unmasking"_a = py::none(), "top_k"_a = py::none(), "top_p"_a = py::none(), NoGil())
      .def_static(
          "load",
          [](const std::shared_ptr<GenieImpl>& genie, const std::string& path) {
            std::string note;
            auto session =
                std::make_unique<WorldSession>(inference::load_session(holder(genie), path, &note));
            return std::pair(std::move(session), note == kBatched);
          },
          "genie"_a, "path"_a, NoGil(), "The session of a file, and whether it was played as a batch.")
      .def(
          "save",
          [](const WorldSession& session, const std::string& path, bool batched) {
            inference::save_session(session, path, batched ? kBatched : "");
          },
          "path"_a, "batched"_a, NoGil())
      .def("step", &WorldSession::step, "actions"_a, NoGil())
      .def("rewind", &WorldSession::rewind, "steps"_a = 1, NoGil())
      .def(
          "fork",
          [](const WorldSession& session, std::optional<uint64_t> seed) {
            return std::make_unique<WorldSession>(session.fork(seed));
          },
          "seed"_a = py::none(), NoGil())
      .def(
          "configure",
          [](WorldSession& session, config::Config config, std::optional<int64_t> steps,
             std::optional<double> temperature, std::optional<std::string> schedule,
             std::optional<std::string> unmasking, std::optional<int64_t> top_k,
             std::optional<double> top_p) {
            config.inference = session.options();
            session.configure(Sampling{steps, top_k, temperature, top_p, schedule, unmasking}.over(config));
          },
          "config"_a, py::kw_only(), "steps"_a = py::none(), "temperature"_a = py::none(),
          "schedule"_a = py::none(), "unmasking"_a = py::none(), "top_k"_a = py::none(),
          "top_p"_a = py::none(), NoGil())
      .def_property_readonly("options",
                             [](const WorldSession& session) {
                               const auto o = session.options();
                               return py::dict("steps"_a = o.steps, "temperature"_a = o.temperature,
                                               "schedule"_a = o.schedule, "unmasking"_a = o.unmasking,
                                               "top_k"_a = o.top_k, "top_p"_a = o.top_p,
                                               "history"_a = o.history, "dtype"_a = o.dtype);
                             })
      .def_property_readonly("frame", py::cpp_function(&WorldSession::frame, NoGil()))
      .def_property_readonly("frames", py::cpp_function(&WorldSession::frames, NoGil()))
      .def_property_readonly("tokens", py::cpp_function(&WorldSession::tokens, NoGil()))
      .def_property_readonly("actions", py::cpp_function(&WorldSession::actions, NoGil()))
      .def_property_readonly("batch_size", py::cpp_function(&WorldSession::batch_size, NoGil()))
      .def_property_readonly("num_actions", py::cpp_function(&WorldSession::num_actions, NoGil()))
      .def_property_readonly("num_steps_taken", py::cpp_function(&WorldSession::num_steps_taken, NoGil()))
      .def_property_readonly("seed", py::cpp_function(&WorldSession::seed, NoGil()));
}

}  // namespace genie::python
