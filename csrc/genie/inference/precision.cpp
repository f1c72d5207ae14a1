#include "genie/inference/precision.h"

#include "genie/core/error.h"

namespace genie::inference {
namespace {

bool cpu_has_bfloat16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

}  // namespace

c10::ScalarType precision_of(const std::string& dtype) {
  return dtype == "bfloat16" ? c10::ScalarType::BFloat16 : c10::ScalarType::Float;
}

void check_precision(const std::string& dtype, const c10::Device& device) {
  check(
      dtype != "bfloat16" || !device.is_cpu() || cpu_has_bfloat16(),
      "inference.dtype = bfloat16: this processor has no bfloat16 instructions (AVX512-BF16), so it would be "
      "slower than float32, not faster; use float32");
}

}  // namespace genie::inference
