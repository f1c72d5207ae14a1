#pragma once

#include <c10/core/Device.h>

namespace c10::cuda {

/// Under emulation there is one device.
struct CUDAGuard {
  explicit CUDAGuard(c10::Device) {}
};

}  // namespace c10::cuda
