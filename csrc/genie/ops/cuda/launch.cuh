#pragma once

#include <c10/cuda/CUDAGuard.h>
#include <c10/util/Exception.h>
#ifdef __CUDACC__
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include <cstdint>
#include <limits>

#include "genie/ops/cuda/device.cuh"

namespace genie::ops {

/// A grid of `blocks` x `rows` blocks of one op; throws where there are more than CUDA numbers.
inline dim3 grid_of(const char* op, int64_t blocks, int64_t rows = 1) {
  constexpr int64_t most_blocks = std::numeric_limits<int32_t>::max(), most_rows = 65535;
  TORCH_CHECK_VALUE(blocks <= most_blocks, op, ": needs ", blocks, " CUDA blocks, more than ", most_blocks,
                    "; use a smaller batch");
  return {static_cast<unsigned>(blocks), static_cast<unsigned>(rows < most_rows ? rows : most_rows)};
}

/// Blocks of block_threads for `count` items of `each` a block.
inline int64_t blocks_for(int64_t count, int64_t each) { return (count + each - 1) / each; }

#ifdef __CUDACC__  // the emulation of the tests has one of its own

/// Starts a kernel of block_threads threads a block on the current stream with `shared` bytes of shared
/// memory.
template <class... Parameters, class... Arguments>
void launch(const char* op, void (*kernel)(Parameters...), dim3 grid, int64_t shared,
            const Arguments&... arguments) {
  constexpr int64_t without_asking = 48 * 1024;
  if (shared > without_asking) {
    int device = 0, most = 0;
    C10_CUDA_CHECK(cudaGetDevice(&device));
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    TORCH_CHECK_VALUE(shared <= most, op, ": this head_dim needs ", shared,
                      " bytes of shared memory, the GPU has ", most, "; use a smaller one");
    C10_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  }
  kernel<<<grid, block_threads, static_cast<size_t>(shared), c10::cuda::getCurrentCUDAStream()>>>(
      arguments...);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

#endif

}  // namespace genie::ops
