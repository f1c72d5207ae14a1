#include "genie/ops/cpu/cpu_kernel.h"

#include <ATen/Version.h>

#include <string>

namespace genie::ops {

CpuLevel cpu_level() {
  static const CpuLevel level = [] {
    const std::string name = at::get_cpu_capability();
    if (name.starts_with("AVX512")) return CpuLevel::avx512;
    return name.starts_with("AVX2") ? CpuLevel::avx2 : CpuLevel::scalar;
  }();
  return level;
}

}  // namespace genie::ops
