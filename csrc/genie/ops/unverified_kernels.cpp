#include "genie/ops/unverified_kernels.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <cstdlib>
#include <string_view>

namespace genie::ops {
namespace {

std::atomic<bool>& enabled() {
  static std::atomic<bool> value = [] {
    const char* text = std::getenv("GENIE_UNVERIFIED_CUDA_KERNELS");
    const std::string_view given = text ? text : "";
    TORCH_CHECK_VALUE(given.empty() || given == "0" || given == "1",
                      "GENIE_UNVERIFIED_CUDA_KERNELS must be 0 or 1, got '", given, "'");
    return given == "1";
  }();
  return value;
}

}  // namespace

bool cuda_kernels_enabled() { return enabled(); }

void enable_unverified_cuda_kernels(bool on) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !on || cuda_kernels_compiled(),
      "this build of genie_cpp has no CUDA kernels: build it with a CUDA torch and nvcc "
      "(docs/development.md)");
  enabled() = on;
}

bool cuda_kernels_compiled() {
  const auto op = c10::Dispatcher::singleton().findSchema({"genie::area_attention", ""});
  return op && op->hasKernelForDispatchKey(c10::DispatchKey::CUDA);
}

void check_cuda_kernels_enabled(const char* op) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      cuda_kernels_enabled(), op,
      ": its CUDA kernel was never run on a GPU and is off. To use it all the same, call "
      "genie_cpp.ops.enable_unverified_cuda_kernels() or set "
      "GENIE_UNVERIFIED_CUDA_KERNELS=1");
}

}  // namespace genie::ops
