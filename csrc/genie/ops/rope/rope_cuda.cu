#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "genie/ops/cuda/launch.cuh"
#include "genie/ops/rope/rope.h"
#include "genie/ops/rope/rope_kernel.cuh"
#include "genie/ops/unverified_kernels.h"

namespace genie::ops {
namespace {

template <class T, class Rotation>
void launch_rotation(const char* op, const at::Tensor& x, const Rotation& rotation, bool transpose,
                     const at::Tensor& out) {
  const int64_t tokens = x.size(0) * x.size(1), channels = x.size(-1);
  const TokenArray<T> from{.data = x.const_data_ptr<T>(),
                           .tokens = x.size(1),
                           .heads = x.numel() / tokens / channels,
                           .head_dim = channels,
                           .batch_stride = x.stride(0),
                           .token_stride = x.stride(1)};
  launch(op, rotate<T, Rotation>, grid_of(op, tokens), rotate_shared(channels, sizeof(at::opmath_type<T>)),
         from, rotation, transpose, out.mutable_data_ptr<T>());
}

at::Tensor rope_3d_cuda(const at::Tensor& x_, const at::Tensor& positions_, int64_t height, int64_t width,
                        bool transpose) {
  if (!cuda_kernels_enabled()) return rope_3d_by_parts(x_, positions_, height, width, transpose);
  check_rope_3d(x_, positions_, height, width);
  const c10::cuda::CUDAGuard on_device(x_.device());
  const at::Tensor x = dense_tokens(x_), positions = positions_.contiguous();
  at::Tensor out = at::empty(x.sizes(), x.options());
  if (x.numel() == 0) return out;
  const GridRotation rotation{.ids = positions.const_data_ptr<int64_t>(),
                              .batch_stride = positions.dim() == 2 ? positions.size(1) : 0,
                              .height = height,
                              .width = width,
                              .half = x.size(-1) / 3 / 2};
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "rope_3d", [&] {
    launch_rotation<scalar_t>("genie::rope_3d", x, rotation, transpose, out);
  });
  return out;
}

at::Tensor rope_register_cuda(const at::Tensor& x_, const at::Tensor& cos, const at::Tensor& sin,
                              bool transpose) {
  if (!cuda_kernels_enabled()) return rope_register_by_parts(x_, cos, sin, transpose);
  check_rope_register(x_, cos, sin);
  const c10::cuda::CUDAGuard on_device(x_.device());
  const at::Tensor x = dense_tokens(x_), cosine = cos.contiguous(), sine = sin.contiguous();
  at::Tensor out = at::empty(x.sizes(), x.options());
  if (x.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "rope_register", [&] {
    using Table = at::opmath_type<scalar_t>;
    const TableRotation<Table> rotation{cosine.const_data_ptr<Table>(), sine.const_data_ptr<Table>(),
                                        x.size(-1)};
    launch_rotation<scalar_t>("genie::rope_register", x, rotation, transpose, out);
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, CUDA, m) {
  m.impl("rope_3d", rope_3d_cuda);
  m.impl("rope_register", rope_register_cuda);
}

}  // namespace genie::ops
