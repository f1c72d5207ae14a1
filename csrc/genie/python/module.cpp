// genie_cpp._C: the C++ core as Python sees it. Import torch first: its types are used here.
#include "genie/python/bindings.h"

PYBIND11_MODULE(_C, m) {
  m.doc() = "The C++ core of genie_cpp; the package's other modules are the way to use it.";
  genie::python::bind_config(m);
  genie::python::bind_data(m);
  genie::python::bind_ops(m);
  genie::python::bind_nn(m);
  genie::python::bind_models(m);
  genie::python::bind_vision(m);
  genie::python::bind_inference(m);
  genie::python::bind_training(m);
}
