#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isinf.h>
#include <ATen/ops/masked_fill.h>
#include <ATen/ops/max.h>
#include <torch/library.h>

#include <tuple>

#include "genie/ops/cuda/launch.cuh"
#include "genie/ops/unverified_kernels.h"
#include "genie/ops/vector_quantize/nearest_codes.cuh"
#include "genie/ops/vector_quantize/vector_quantize.h"

namespace genie::ops {
namespace {

constexpr const char* name = "genie::vector_quantize";

std::tuple<at::Tensor, at::Tensor> vector_quantize_cuda(const at::Tensor& x_, const at::Tensor& codebook_) {
  check_cuda_kernels_enabled(name);
  check_vector_quantize(x_, codebook_);
  const c10::cuda::CUDAGuard on_device(x_.device());
  const at::Tensor x = x_.contiguous(), codebook = codebook_.contiguous();
  const int64_t count = x.size(0), channels = x.size(1), codes = codebook.size(0);
  at::Tensor indices = at::empty({count}, x.options().dtype(at::kLong));
  at::Tensor quantized = at::empty(x.sizes(), x.options());
  if (count == 0) return {quantized, indices};
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "vector_quantize", [&] {
    using Acc = at::opmath_type<scalar_t>;
    const at::Tensor half_norms = at::empty({codes}, x.options().dtype(c10::CppTypeToScalarType<Acc>::value));
    launch(name, half_norms_of_codes<scalar_t>, grid_of(name, blocks_for(codes, block_threads)), 0,
           codebook.const_data_ptr<scalar_t>(), codes, channels, half_norms.mutable_data_ptr<Acc>());
    const at::Tensor largest = half_norms.masked_fill(half_norms.isinf(), 0).max();
    launch(name, nearest_codes_of<scalar_t>, grid_of(name, blocks_for(count, block_warps)),
           nearest_codes_shared(channels, sizeof(Acc)), x.const_data_ptr<scalar_t>(), count,
           codebook.const_data_ptr<scalar_t>(), codes, channels, half_norms.const_data_ptr<Acc>(),
           largest.const_data_ptr<Acc>(), indices.mutable_data_ptr<int64_t>(),
           quantized.mutable_data_ptr<scalar_t>());
  });
  return {quantized, indices};
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, CUDA, m) { m.impl("vector_quantize", vector_quantize_cuda); }

}  // namespace genie::ops
