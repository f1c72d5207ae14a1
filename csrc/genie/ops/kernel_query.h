#pragma once

#include <ATen/core/Tensor.h>

namespace genie::ops {

/// Whether the op (such as "genie::st_attention") has a kernel for the device of `tensor` in this build that
/// may be used (unverified_kernels.h). Modules take ordinary torch operations where it has none.
bool has_kernel(const char* op, const at::Tensor& tensor);

}  // namespace genie::ops
