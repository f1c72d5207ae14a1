#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "genie/ops/vector_quantize/nearest_codes.h"
#include "genie/ops/vector_quantize/vector_quantize.h"

namespace genie::ops {

constinit CpuKernel<void(const NearestCodesTask&)> nearest_codes;

namespace {

std::tuple<at::Tensor, at::Tensor> vector_quantize_cpu(const at::Tensor& x_, const at::Tensor& codebook_) {
  check_vector_quantize(x_, codebook_);
  const auto x = x_.contiguous(), codebook = codebook_.contiguous();
  auto indices = at::empty({x.size(0)}, x.options().dtype(at::kLong));
  auto quantized = at::empty(x.sizes(), x.options());
  nearest_codes(NearestCodesTask{.dtype = x.scalar_type(),
                                 .count = x.size(0),
                                 .codes = codebook.size(0),
                                 .channels = x.size(1),
                                 .x = x.const_data_ptr(),
                                 .codebook = codebook.const_data_ptr(),
                                 .indices = indices.mutable_data_ptr<int64_t>(),
                                 .quantized = quantized.data_ptr()});
  return {quantized, indices};
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, CPU, m) { m.impl("vector_quantize", vector_quantize_cpu); }

}  // namespace genie::ops
