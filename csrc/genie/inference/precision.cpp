#include "genie/inference/precision.h"

#include "genie/core/error.h"
#include "genie/ops/products.h"

namespace genie::inference {

void check_precision(const std::string& dtype, const c10::Device& device) {
  check(dtype != "bfloat16" || !device.is_cpu() || ops::cpu_multiplies_bfloat16(),
        "inference.dtype = bfloat16: this processor has no bfloat16 instructions (AVX512-BF16), so it would "
        "be slower than float32, not faster; use float32");
}

}  // namespace genie::inference
