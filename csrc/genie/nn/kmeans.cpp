#include "genie/nn/kmeans.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <vector>

#include "genie/nn/autocast.h"
#include "genie/ops/kernel_query.h"
#include "genie/ops/vector_quantize/vector_quantize.h"

namespace genie::nn {

at::Tensor nearest(const at::Tensor& points, const at::Tensor& centers) {
  TORCH_CHECK_VALUE(points.dim() == 2 && centers.dim() == 2 && points.size(1) == centers.size(1),
                    "nearest: expected points (M,D) and centers (K,D), got ", points.sizes(), " and ",
                    centers.sizes());
  const NoAutocastScope full_precision;
  if (ops::has_kernel("genie::vector_quantize", points)) {
    return std::get<1>(ops::vector_quantize(points, centers));
  }
  constexpr int64_t kBlock = 4096;
  const at::Tensor half_norms = centers.square().sum(1) * 0.5;
  const at::Tensor transposed = centers.t();
  std::vector<at::Tensor> found;
  for (int64_t begin = 0; begin < points.size(0); begin += kBlock) {
    const at::Tensor block = points.narrow(0, begin, std::min(kBlock, points.size(0) - begin));
    // |p - c|^2 / 2 less the |p|^2 / 2 that all centers share.
    found.push_back(at::addmm(half_norms, block, transposed, 1, -1).argmin(1));
  }
  return found.empty() ? at::empty({0}, points.options().dtype(at::kLong)) : at::cat(found);
}

at::Tensor kmeans(const at::Tensor& input, int64_t count, int64_t iterations, uint64_t seed) {
  at::NoGradGuard no_grad;
  TORCH_CHECK_VALUE(input.dim() == 2 && input.size(0) >= 1 && count >= 1,
                    "kmeans: expected points (M,D) with M >= 1 and count >= 1, got ", input.sizes(), " and ",
                    count);
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const at::Tensor points = input.detach().to(at::kFloat);
  const auto draw = [&](int64_t n) {
    return points.index_select(0, at::randint(points.size(0), {n}, generator, at::kLong).to(points.device()));
  };
  at::Tensor centers;
  if (points.size(0) >= count) {
    centers = points.index_select(
        0, at::randperm(points.size(0), generator, at::kLong).narrow(0, 0, count).to(points.device()));
  } else {
    const double spread = points.size(0) > 1 ? points.std().item<double>() : 1.0;
    centers = draw(count);
    centers += at::randn(centers.sizes(), generator, centers.options().device(at::kCPU)).to(points.device()) *
               (0.01 * spread + 1e-6);
  }
  for (int64_t i = 0; i < iterations; ++i) {
    const at::Tensor assigned = nearest(points, centers);
    const at::Tensor counts = at::zeros({count}, points.options())
                                  .index_add_(0, assigned, at::ones({points.size(0)}, points.options()));
    const at::Tensor sums = at::zeros_like(centers).index_add_(0, assigned, points);
    centers = at::where((counts > 0).unsqueeze(1), sums / counts.clamp_min(1).unsqueeze(1), draw(count));
  }
  return centers;
}

}  // namespace genie::nn
