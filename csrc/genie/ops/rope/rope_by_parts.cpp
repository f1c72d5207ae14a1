#include <ATen/ATen.h>
#include <torch/library.h>

#include <vector>

#include "genie/ops/rope/rope.h"

namespace genie::ops {
namespace {

/// The dtype angles and products are computed in.
at::ScalarType wide(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

/// (samples or 1, N, c) with ones for the head dimensions of x (B, N, ..., d).
at::Tensor beside_heads(const at::Tensor& table, const at::Tensor& x) {
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[0] = table.dim() == 3 ? table.size(0) : 1;
  shape[1] = table.size(-2);
  shape.back() = table.size(-1);
  return table.reshape(shape);
}

/// The channels with the two halves of each group of `width` changed for each other.
at::Tensor swapped(const at::Tensor& x, int64_t width) {
  return x.unflatten(-1, {x.size(-1) / width, 2, width / 2}).flip({-2}).flatten(-3);
}

/// y[c] = cosine[c] x[c] + sine[c] x[partner of c]; `sine` signed, partners in groups of `width` channels.
at::Tensor turn(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine, int64_t width,
                bool transpose) {
  const at::Tensor other = transpose ? swapped(sine, width) : sine;
  const at::Tensor exact = x.to(wide(x));
  return (exact * beside_heads(cosine, x) + swapped(exact, width) * beside_heads(other, x))
      .to(x.scalar_type());
}

}  // namespace

at::Tensor rope_3d_by_parts(const at::Tensor& x, const at::Tensor& positions, int64_t height, int64_t width,
                            bool transpose) {
  check_rope_3d(x, positions, height, width);
  const int64_t half = x.size(-1) / 3 / 2, rotated = 6 * half;
  if (half == 0) return x.clone(at::MemoryFormat::Contiguous);
  const auto options = x.options().dtype(wide(x));
  const at::Tensor frame = at::floor_divide(positions, height * width),
                   rest = positions - frame * (height * width);
  const at::Tensor row = at::floor_divide(rest, width);
  const at::Tensor place =
      at::stack({frame, row, rest - row * width}, -1).to(options.dtype());  // (..., N, 3)
  // Each part runs through its frequencies twice.
  const at::Tensor steps = at::arange(half, options.dtype(at::kDouble)) * (-1.0 / static_cast<double>(half));
  const at::Tensor frequency = at::pow(10000.0, steps).to(options.dtype()).repeat({2});
  const at::Tensor angle = (place.unsqueeze(-1) * frequency).flatten(-2);  // (..., N, rotated)
  const at::Tensor sign = at::arange(rotated, options).remainder(2) * 2 - 1;
  const at::Tensor turned = turn(x.narrow(-1, 0, rotated), angle.cos(), angle.sin() * sign, 2, transpose);
  return at::cat({turned, x.narrow(-1, rotated, x.size(-1) - rotated)}, -1);
}

at::Tensor rope_register_by_parts(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                                  bool transpose) {
  check_rope_register(x, cos, sin);
  if (x.numel() == 0) return at::empty(x.sizes(), x.options());
  const int64_t width = x.size(-1) / 2;
  const at::Tensor first =
      at::arange(x.size(-1), cos.options()).remainder(width) < static_cast<double>(width) / 2;
  return turn(x, cos, at::where(first, -sin, sin), width, transpose).contiguous();
}

// For every device without a kernel.
TORCH_LIBRARY_IMPL(genie, CompositeExplicitAutograd, m) {
  m.impl("rope_3d", rope_3d_by_parts);
  m.impl("rope_register", rope_register_by_parts);
}

}  // namespace genie::ops
