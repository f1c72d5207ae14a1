#include "genie/ops/unverified_kernels.h"
#include "genie/python/bindings.h"

namespace genie::python {

void bind_ops(pybind11::module_& m) {
  m.def("cuda_kernels_compiled", ops::cuda_kernels_compiled);
  m.def("cuda_kernels_enabled", ops::cuda_kernels_enabled);
  m.def("enable_unverified_cuda_kernels", ops::enable_unverified_cuda_kernels, pybind11::arg("enabled"));
}

}  // namespace genie::python
