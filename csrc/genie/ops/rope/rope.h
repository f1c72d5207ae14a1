#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace genie::ops {

/// More frames, rows or columns than any grid has; products of two of them don't overflow.
constexpr int64_t kMaxGridSide = int64_t{1} << 30;

/// Rotary position embedding of V-JEPA 2 (arXiv 2506.09985): three parts of each head's channels, 2 ((d / 3)
/// / 2) wide each, turn with the token's frame, row and column; the rest is left alone. Neighbouring channels
/// form the pairs while the angles are tiled, as in the published weights; so it isn't norm-preserving.
///
/// `x`: (B, N, ..., d) in float32, bfloat16 or float64 (on CUDA float16 too), any number of head dimensions.
/// `positions`: token ids, (N) or (B, N), int64, in a grid of `height` x `width` tokens a frame: frame id /
/// (height width), then row, then column. Returns the shape of x. Angles are float32, float64 for float64.
/// `transpose` applies the transposed map, which is the gradient; so every order of derivative is defined.
at::Tensor rope_3d(const at::Tensor& x, const at::Tensor& positions, int64_t height, int64_t width,
                   bool transpose = false);

/// Register-aware 2-D rotary embedding of ViT-5 attention: in each half of the head (rows, columns) channel c
/// pairs with c + d/4, and every channel has its own angle in the tables.
///
/// `x`: (B, N, ..., d) in float32, bfloat16 or float64, d divisible by 4. `cos`, `sin`: (N, d), float32
/// (float64 for float64 x); constants, without gradient. Returns the shape of x. `transpose` as above.
at::Tensor rope_register(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                         bool transpose = false);

void check_rope_3d(const at::Tensor& x, const at::Tensor& positions, const c10::SymInt& height,
                   const c10::SymInt& width);
void check_rope_register(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

/// The same by ordinary torch operations, on any device.
at::Tensor rope_3d_by_parts(const at::Tensor& x, const at::Tensor& positions, int64_t height, int64_t width,
                            bool transpose);
at::Tensor rope_register_by_parts(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                                  bool transpose);

/// x with each token's heads and channels side by side: x itself where it is a slice of a projection.
at::Tensor dense_tokens(const at::Tensor& x);

}  // namespace genie::ops
