#pragma once

#include <array>
#include <cstddef>
#include <utility>

namespace genie::ops {

/// Instruction sets the vector sources (*_vec.cpp) are compiled for, lowest first.
enum class CpuLevel { scalar, avx2, avx512 };

/// What this processor has, as torch sees it (ATEN_CPU_CAPABILITY lowers it).
CpuLevel cpu_level();

/// A function with one variant an instruction set. The variants register themselves when the library is
/// loaded; a call takes the highest one the processor has.
template <class Function>
class CpuKernel {
 public:
  bool add(int level, Function* variant) {
    variants_[static_cast<size_t>(level)] = variant;
    return true;
  }

  template <class... Args>
  decltype(auto) operator()(Args&&... args) const {
    auto level = static_cast<size_t>(cpu_level());
    while (level > 0 && variants_[level] == nullptr) --level;
    return variants_[level](std::forward<Args>(args)...);
  }

 private:
  std::array<Function*, 3> variants_{};
};

}  // namespace genie::ops

/// In a *_vec.cpp: makes `variant` the version of `kernel` for the instruction set being compiled.
#define GENIE_CPU_KERNEL(kernel, variant) \
  [[maybe_unused]] static const bool kernel##_registered = kernel.add(GENIE_CPU_LEVEL, &variant)
