#include "genie/ops/kernel_query.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/TensorOptions.h>

#include "genie/ops/unverified_kernels.h"

namespace genie::ops {

bool has_kernel(const char* op, const at::Tensor& tensor) {
  if (tensor.is_cuda() && !cuda_kernels_enabled()) return false;
  const auto handle = c10::Dispatcher::singleton().findSchema({op, ""});
  return handle && handle->hasKernelForDispatchKey(
                       c10::computeDispatchKey(tensor.scalar_type(), tensor.layout(), tensor.device()));
}

}  // namespace genie::ops
