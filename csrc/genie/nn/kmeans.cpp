#include "genie/nn/kmeans.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <tuple>
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

at::Tensor draw_by_error(const at::Tensor& points, const at::Tensor& centers, int64_t count, uint64_t seed) {
  const NoAutocastScope full_precision;
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const at::Tensor error =
      (points - centers.index_select(0, nearest(points, centers))).square().sum(1).to(at::kCPU, at::kDouble);
  // A point on its center still has a chance, so that there is always something to draw.
  const at::Tensor drawn =
      at::multinomial(error + error.mean() * 1e-6 + 1e-30, count, count > points.size(0), generator);
  return points.index_select(0, drawn.to(points.device()));
}

at::Tensor kmeans(const at::Tensor& input, int64_t count, int64_t iterations, uint64_t seed) {
  at::NoGradGuard no_grad;
  TORCH_CHECK_VALUE(input.dim() == 2 && input.size(0) >= 1 && count >= 1,
                    "kmeans: expected points (M,D) with M >= 1 and count >= 1, got ", input.sizes(), " and ",
                    count);
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const at::Tensor points = input.detach().to(at::kFloat);
  // Video repeats itself: a start among distinct points does not spend half the centers on the sky.
  const at::Tensor distinct = std::get<0>(at::unique_dim(points, 0));
  at::Tensor centers;
  if (distinct.size(0) >= count) {
    centers = distinct.index_select(
        0, at::randperm(distinct.size(0), generator, at::kLong).narrow(0, 0, count).to(points.device()));
  } else {
    const double spread = distinct.size(0) > 1 ? distinct.std().item<double>() : 1.0;
    centers = distinct.index_select(
        0, at::randint(distinct.size(0), {count}, generator, at::kLong).to(points.device()));
    centers += at::randn(centers.sizes(), generator, centers.options().device(at::kCPU)).to(points.device()) *
               (0.01 * spread + 1e-6);
  }
  for (int64_t i = 0; i < iterations; ++i) {
    const at::Tensor assigned = nearest(points, centers);
    const at::Tensor counts = at::zeros({count}, points.options())
                                  .index_add_(0, assigned, at::ones({points.size(0)}, points.options()));
    const at::Tensor sums = at::zeros_like(centers).index_add_(0, assigned, points);
    centers = at::where((counts > 0).unsqueeze(1), sums / counts.clamp_min(1).unsqueeze(1), centers);
    const at::Tensor lost = (counts == 0).nonzero().flatten();
    if (lost.size(0) > 0)
      centers.index_copy_(0, lost,
                          draw_by_error(points, centers, lost.size(0), seed + 1 + static_cast<uint64_t>(i)));
  }
  return centers;
}

}  // namespace genie::nn
