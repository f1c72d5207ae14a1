#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace genie::nn {

/// Index of the nearest row of centers (K,D) for each row of points (M,D), int64 (M); ties take the lower
/// index. Computed block by block, so that no M x K matrix exists.
at::Tensor nearest(const at::Tensor& points, const at::Tensor& centers);

/// Lloyd's algorithm: `count` centers (count,D) of points (M,D), started from points drawn with `seed`; a
/// center that loses its points restarts at a random point. Fewer points than centers are jittered copies.
at::Tensor kmeans(const at::Tensor& points, int64_t count, int64_t iterations, uint64_t seed);

}  // namespace genie::nn
