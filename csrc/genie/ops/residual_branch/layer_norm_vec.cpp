#include "genie/ops/residual_branch/layer_norm.h"

#include <cmath>

#include "genie/ops/cpu/reduce_vec.h"
#include "genie/ops/cpu/rows_vec.h"

namespace genie::ops {
inline namespace CPU_CAPABILITY {
namespace {

using Vec = at::vec::Vectorized<float>;

void layer_norm_row(const LayerNormRows& task, int64_t row, const float* bias, float eps, float* out) {
  const int64_t width = task.width;
  const float* x = task.x + row * width;
  Vec total(0.0F), squares(0.0F);
  for_vectors(width, [&](int64_t c, int lanes) { total = total + load(x + c, lanes); });
  const float mean = sum_of(total) / static_cast<float>(width);
  for_vectors(width, [&](int64_t c, int lanes) {
    const Vec centred = load(x + c, lanes, mean) - Vec(mean);
    squares = at::vec::fmadd(centred, centred, squares);
  });
  const float inverse = 1 / std::sqrt(sum_of(squares) / static_cast<float>(width) + eps);
  task.mean[row] = mean;
  task.inverse_std[row] = inverse;
  for_vectors(width, [&](int64_t c, int lanes) {
    const Vec normal = (load(x + c, lanes) - Vec(mean)) * Vec(inverse);
    at::vec::fmadd(normal, load(task.weight + c, lanes), load(bias + c, lanes))
        .store(out + row * width + c, lanes);
  });
}

void layer_norm_cpu(const LayerNormRows& task, const float* bias, float eps, float* out) {
  for_rows(task.rows, task.width, [&](int64_t row) { layer_norm_row(task, row, bias, eps, out); });
}

/// Of one row; `sums` are those of the gradients by weight and bias.
void layer_norm_gradient_row(const LayerNormRows& task, int64_t row, const float* grad_rows,
                             const float* residual, float* to_x, float* sums) {
  const int64_t width = task.width;
  const float *x = task.x + row * width, *grad = grad_rows + row * width;
  const Vec mean(task.mean[row]), inverse(task.inverse_std[row]);
  Vec total(0.0F), along(0.0F);
  for_vectors(width, [&](int64_t c, int lanes) {
    const Vec normal = (load(x + c, lanes) - mean) * inverse;
    const Vec by_out = load(grad + c, lanes), by_normal = by_out * load(task.weight + c, lanes);
    at::vec::fmadd(by_out, normal, load(sums + c, lanes)).store(sums + c, lanes);
    (load(sums + width + c, lanes) + by_out).store(sums + width + c, lanes);
    total = total + by_normal;
    along = at::vec::fmadd(by_normal, normal, along);
  });
  const Vec share(sum_of(total) / static_cast<float>(width)),
      projection(sum_of(along) / static_cast<float>(width));
  for_vectors(width, [&](int64_t c, int lanes) {
    const Vec normal = (load(x + c, lanes) - mean) * inverse;
    const Vec by_normal = load(grad + c, lanes) * load(task.weight + c, lanes);
    const Vec others = residual ? load(residual + row * width + c, lanes) : Vec(0.0F);
    at::vec::fmadd(inverse, by_normal - share - normal * projection, others)
        .store(to_x + row * width + c, lanes);
  });
}

void layer_norm_gradient_cpu(const LayerNormRows& task, const float* grad, const float* residual, float* to_x,
                             float* to_weight_and_bias) {
  add_row_sums(task.rows, 2 * task.width, to_weight_and_bias, [&](int64_t begin, int64_t end, float* sums) {
    for (int64_t row = begin; row < end; ++row)
      layer_norm_gradient_row(task, row, grad, residual, to_x, sums);
  });
}

}  // namespace
}  // namespace CPU_CAPABILITY

GENIE_CPU_KERNEL(layer_norm, layer_norm_cpu);
GENIE_CPU_KERNEL(layer_norm_gradient, layer_norm_gradient_cpu);

}  // namespace genie::ops
