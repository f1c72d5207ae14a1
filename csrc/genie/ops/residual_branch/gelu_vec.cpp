#include <utility>

#include "genie/ops/cpu/exp2_vec.h"
#include "genie/ops/cpu/rows_vec.h"
#include "genie/ops/residual_branch/gelu.h"

namespace genie::ops {
inline namespace CPU_CAPABILITY {
namespace {

using Vec = at::vec::Vectorized<float>;

/// The normal distribution function at x, and exp(-x^2 / 2). Abramowitz and Stegun, Handbook of Mathematical
/// Functions, 7.1.26: its error is below 1e-7 here, about float32's own near 1.
std::pair<Vec, Vec> normal_cdf(Vec x) {
  const Vec one(1.0F), zero(0.0F);
  const Vec t = one / at::vec::fmadd(x.abs(), Vec(0.3275911F * 0.70710678F), one);
  Vec sum = at::vec::fmadd(t, Vec(1.061405429F), Vec(-1.453152027F));
  sum = at::vec::fmadd(t, sum, Vec(1.421413741F));
  sum = at::vec::fmadd(t, sum, Vec(-0.284496736F));
  sum = at::vec::fmadd(t, sum, Vec(0.254829592F));
  const Vec bell = exp2_to_127(x * x * Vec(static_cast<float>(-0.5 * log2_of_e)));
  const Vec tail = Vec(0.5F) * t * sum * bell;
  return {Vec::blendv(one - tail, tail, x < zero), bell};
}

void gelu_forward_cpu(float* in, const float* bias, float* out, int64_t rows, int64_t width) {
  for_rows(rows, width, [=](int64_t row) {
    float* from = in + row * width;
    float* to = out + row * width;
    for_vectors(width, [=](int64_t c, int lanes) {
      const Vec x = load(from + c, lanes) + load(bias + c, lanes);
      x.store(from + c, lanes);
      (x * normal_cdf(x).first).store(to + c, lanes);
    });
  });
}

/// The rows `begin` to `end` of gelu_again; their gradients' sums over columns are added to `sums`.
void gelu_again_rows(const float* in, float* out, float* grad, int64_t begin, int64_t end, int64_t width,
                     float* sums) {
  for (int64_t at = begin * width; at < end * width; at += width) {
    for_vectors(width, [=](int64_t c, int lanes) {
      const Vec x = load(in + at + c, lanes);
      const auto [cdf, bell] = normal_cdf(x);
      const Vec g = load(grad + at + c, lanes) * at::vec::fmadd(x * bell, Vec(0.39894228F), cdf);
      (x * cdf).store(out + at + c, lanes);
      g.store(grad + at + c, lanes);
      (load(sums + c, lanes) + g).store(sums + c, lanes);
    });
  }
}

void gelu_again_cpu(const float* in, float* out, float* grad, int64_t rows, int64_t width, float* sums) {
  add_row_sums(rows, width, sums, [=](int64_t begin, int64_t end, float* partial) {
    gelu_again_rows(in, out, grad, begin, end, width, partial);
  });
}

}  // namespace
}  // namespace CPU_CAPABILITY

GENIE_CPU_KERNEL(gelu_forward, gelu_forward_cpu);
GENIE_CPU_KERNEL(gelu_again, gelu_again_cpu);

}  // namespace genie::ops
