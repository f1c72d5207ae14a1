#include "genie/ops/products.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include <atomic>

namespace genie::ops {
namespace {

bool asked_cpu() {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return true;  // not known to be slow
#endif
}

std::atomic<bool>& multiplies_bfloat16() {
  static std::atomic<bool> answer = asked_cpu();
  return answer;
}

}  // namespace

bool cpu_multiplies_bfloat16() { return multiplies_bfloat16(); }

void assume_cpu_multiplies_bfloat16(std::optional<bool> assumed) {
  multiplies_bfloat16() = assumed.value_or(asked_cpu());
}

bool widened(at::ScalarType dtype, at::Device device) {
  return dtype == at::kBFloat16 && device.is_cpu() && !cpu_multiplies_bfloat16();
}

at::Tensor as_factor(const at::Tensor& tensor, at::ScalarType dtype) {
  const at::Tensor rounded = tensor.to(dtype);
  return widened(dtype, tensor.device()) ? rounded.to(at::kFloat) : rounded;
}

std::optional<at::Tensor> as_factor(const std::optional<at::Tensor>& tensor, at::ScalarType dtype) {
  return tensor ? std::optional(as_factor(*tensor, dtype)) : std::nullopt;
}

void multiply_into(at::Tensor out, const at::Tensor& a, const at::Tensor& b,
                   const std::optional<at::Tensor>& bias) {
  if (out.scalar_type() != a.scalar_type()) {
    out.copy_(bias ? at::addmm(*bias, a, b) : a.mm(b));
  } else if (bias) {
    at::addmm_out(out, *bias, a, b);
  } else {
    at::mm_out(out, a, b);
  }
}

void add_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
  if (sum.scalar_type() == a.scalar_type()) {
    sum.addmm_(a, b);
  } else {
    sum.add_(a.mm(b));
  }
}

}  // namespace genie::ops
