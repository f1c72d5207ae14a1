#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "genie/ops/cpu/exp2_vec.h"
#include "genie/ops/residual_branch/gelu.h"

namespace genie::ops {
inline namespace CPU_CAPABILITY {
namespace {

using Vec = at::vec::Vectorized<float>;
constexpr int64_t grain = 16384;

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
  at::parallel_for(0, rows, std::max<int64_t>(1, grain / width), [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* from = in + row * width;
      float* to = out + row * width;
      int64_t c = 0;
      for (; c + Vec::size() <= width; c += Vec::size()) {
        const Vec x = Vec::loadu(from + c) + Vec::loadu(bias + c);
        x.store(from + c);
        (x * normal_cdf(x).first).store(to + c);
      }
      if (c < width) {
        const auto rest = static_cast<int>(width - c);
        const Vec x = Vec::loadu(from + c, rest) + Vec::loadu(bias + c, rest);
        x.store(from + c, rest);
        (x * normal_cdf(x).first).store(to + c, rest);
      }
    }
  });
}

/// The rows `begin` to `end` of gelu_again; their gradients' sums over columns are added to `sums`.
void gelu_again_rows(const float* in, float* out, float* grad, int64_t begin, int64_t end, int64_t width,
                     float* sums) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * width;
    int64_t c = 0;
    for (; c + Vec::size() <= width; c += Vec::size()) {
      const Vec x = Vec::loadu(in + at + c);
      const auto [cdf, bell] = normal_cdf(x);
      const Vec g = Vec::loadu(grad + at + c) * at::vec::fmadd(x * bell, Vec(0.39894228F), cdf);
      (x * cdf).store(out + at + c);
      g.store(grad + at + c);
      (Vec::loadu(sums + c) + g).store(sums + c);
    }
    if (c < width) {
      const auto rest = static_cast<int>(width - c);
      const Vec x = Vec::loadu(in + at + c, rest);
      const auto [cdf, bell] = normal_cdf(x);
      const Vec g = Vec::loadu(grad + at + c, rest) * at::vec::fmadd(x * bell, Vec(0.39894228F), cdf);
      (x * cdf).store(out + at + c, rest);
      g.store(grad + at + c, rest);
      (Vec::loadu(sums + c, rest) + g).store(sums + c, rest);
    }
  }
}

void gelu_again_cpu(const float* in, float* out, float* grad, int64_t rows, int64_t width, float* sums) {
  // Sums of sums of few rows each: float32's rounding grows with the number of terms.
  constexpr int64_t few = 64;
  const int64_t groups = (rows + few - 1) / few;
  std::vector<float> partial(static_cast<size_t>(groups * width));
  at::parallel_for(0, groups, std::max<int64_t>(1, grain / (few * width)), [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      gelu_again_rows(in, out, grad, group * few, std::min(rows, (group + 1) * few), width,
                      partial.data() + group * width);
    }
  });
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t c = 0; c < width; ++c) sums[c] += partial[static_cast<size_t>(group * width + c)];
  }
}

}  // namespace
}  // namespace CPU_CAPABILITY

GENIE_CPU_KERNEL(gelu_forward, gelu_forward_cpu);
GENIE_CPU_KERNEL(gelu_again, gelu_again_cpu);

}  // namespace genie::ops
