#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

namespace genie::ops {

/// Throws TypeError unless x has a dtype the ops compute in: float32, bfloat16 or float64, elsewhere than on
/// the CPU float16 too.
inline void check_float(const char* op, const char* name, const at::Tensor& x) {
  const auto dtype = x.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kDouble ||
                       (dtype == at::kHalf && !x.is_cpu()),
                   op, ": ", name, " must be float32, bfloat16 or float64", x.is_cpu() ? "" : ", or float16",
                   ", got ", dtype);
}

}  // namespace genie::ops
