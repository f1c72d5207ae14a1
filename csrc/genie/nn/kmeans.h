#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace genie::nn {

/// Index of the nearest row of centers (K,D) for each row of points (M,D), int64 (M); ties take the lower
/// index. Computed block by block, so that no M x K matrix exists.
at::Tensor nearest(const at::Tensor& points, const at::Tensor& centers);

/// `count` of the points (M,D), drawn with a probability that grows with the squared distance to their
/// nearest center.
at::Tensor draw_by_error(const at::Tensor& points, const at::Tensor& centers, int64_t count, uint64_t seed);

/// Lloyd's algorithm: `count` centers (count,D) of points (M,D), started from distinct points drawn with
/// `seed`; a center without points restarts at a badly served one. With fewer distinct points than centers,
/// centers are jittered copies.
at::Tensor kmeans(const at::Tensor& points, int64_t count, int64_t iterations, uint64_t seed);

}  // namespace genie::nn
