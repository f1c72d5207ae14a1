#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "genie/ops/rope/rope.h"
#include "genie/ops/rope/rope_kernel.h"

namespace genie::ops {

constinit CpuKernel<void(const RopeTask&, const GridPositions&)> rotate_3d;
constinit CpuKernel<void(const RopeTask&, const void*, const void*)> rotate_register;

namespace {

RopeTask make_task(const at::Tensor& x, const at::Tensor& out, bool transpose) {
  const int64_t channels = x.size(-1), tokens = x.size(0) * x.size(1);
  return {.dtype = x.scalar_type(),
          .batch = x.size(0),
          .tokens = x.size(1),
          .heads = tokens && channels ? x.numel() / tokens / channels : 0,
          .head_dim = channels,
          .x = x.const_data_ptr(),
          .batch_stride = x.stride(0),
          .token_stride = x.stride(1),
          .out = out.data_ptr(),
          .transpose = transpose};
}

at::Tensor rope_3d_cpu(const at::Tensor& x_, const at::Tensor& positions_, int64_t height, int64_t width,
                       bool transpose) {
  check_rope_3d(x_, positions_, height, width);
  const auto x = dense_tokens(x_), positions = positions_.contiguous();
  auto out = at::empty(x.sizes(), x.options());
  rotate_3d(make_task(x, out, transpose),
            GridPositions{.ids = positions.const_data_ptr<int64_t>(),
                          .batch_stride = positions.dim() == 2 ? positions.size(1) : 0,
                          .height = height,
                          .width = width});
  return out;
}

at::Tensor rope_register_cpu(const at::Tensor& x_, const at::Tensor& cos, const at::Tensor& sin,
                             bool transpose) {
  check_rope_register(x_, cos, sin);
  const auto x = dense_tokens(x_), cosine = cos.contiguous(), sine = sin.contiguous();
  auto out = at::empty(x.sizes(), x.options());
  rotate_register(make_task(x, out, transpose), cosine.const_data_ptr(), sine.const_data_ptr());
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, CPU, m) {
  m.impl("rope_3d", rope_3d_cpu);
  m.impl("rope_register", rope_register_cpu);
}

}  // namespace genie::ops
