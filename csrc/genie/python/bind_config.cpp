#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <exception>
#include <string>
#include <vector>

#include "genie/config/config.h"
#include "genie/core/error.h"
#include "genie/python/bindings.h"

namespace genie::python {
namespace {

namespace py = pybind11;
using namespace py::literals;
using config::Config;

/// genie::Error becomes GenieError; an error of torch what it is in Python (ValueError, TypeError, ...),
/// without the C++ backtrace. Local to this extension, so that it never changes what others throw.
void register_exceptions(py::module_& m) {
  PyObject* error = PyErr_NewExceptionWithDoc(
      "genie_cpp.GenieError",
      "Something the user can put right: what was expected, what was found, and the remedy.",
      PyExc_ValueError, nullptr);
  if (error == nullptr) throw py::error_already_set();
  static PyObject* genie_error = error;  // lives as long as the interpreter
  m.attr("GenieError") = py::handle(error);
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const Error& found) {
      PyErr_SetString(genie_error, found.what());
    } catch (const c10::Error&) {
      torch::translate_exception_to_python(std::current_exception());
    }
  });
}

}  // namespace

void bind_config(py::module_& m) {
  register_exceptions(m);
  py::class_<Config>(m, "Config",
                     "A whole configuration, every key checked (docs/configuration.md). Config() holds the "
                     "defaults.")
      .def(py::init<>())
      .def_static("load", &config::load_config, "path"_a,
                  "Reads a YAML file. GenieError names the file, line and key of what is wrong, what is "
                  "allowed and, for an unknown key, the nearest known one.")
      .def_static("parse", &config::parse_config, "yaml"_a, "name"_a = "<string>",
                  "Reads YAML text; `name` stands in errors.")
      .def("override", &config::apply_overrides, "entries"_a,
           "Sets \"section.key=value\" entries, checked like a file's own; where one is wrong, nothing "
           "changes.")
      .def("to_yaml", &config::to_yaml, "documented"_a = false,
           "Every key as YAML; `documented` adds each key's meaning and range.")
      .def("__eq__", [](const Config& a, const Config& b) { return to_yaml(a) == to_yaml(b); })
      .def("__eq__", [](const Config&, const py::object&) { return false; })
      .def("__repr__", [](const Config& config) { return "Config.parse('''\n" + to_yaml(config) + "''')"; })
      .def("__copy__", [](const Config& config) { return config; })
      .def(
          "__deepcopy__", [](const Config& config, const py::dict&) { return config; }, "memo"_a)
      .def(py::pickle([](const Config& config) { return to_yaml(config); },
                      [](const std::string& yaml) { return config::parse_config(yaml, "pickled Config"); }));
  m.def("describe_config", &config::describe,
        "Markdown tables of every key: default, what is allowed, meaning.");
}

}  // namespace genie::python
