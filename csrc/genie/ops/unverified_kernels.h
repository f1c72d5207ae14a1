#pragma once

namespace genie::ops {

/// The CUDA kernels were compiled, and those of our own run under emulation on a CPU, but none was ever run
/// on a GPU (docs/performance.md says which was run where). So they are off until somebody asks for them: by
/// enable_unverified_cuda_kernels(), or by GENIE_UNVERIFIED_CUDA_KERNELS=1 in the environment. Modules
/// compute with ordinary torch operations meanwhile (has_kernel is false), and the ops themselves refuse CUDA
/// tensors.
bool cuda_kernels_enabled();

/// Turns them on or off for this process. Throws where this build has none.
void enable_unverified_cuda_kernels(bool enabled = true);

/// Whether this build has CUDA kernels.
bool cuda_kernels_compiled();

/// Called by every CUDA kernel: throws NotImplementedError, naming the op and the remedy, where they are off.
void check_cuda_kernels_enabled(const char* op);

}  // namespace genie::ops
