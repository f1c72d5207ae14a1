// One kernel for all devices, made of torch's operations but for float32's softmax on the CPU.

#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "genie/ops/linear_cross_entropy/linear_cross_entropy.h"
#include "genie/ops/linear_cross_entropy/softmax_gradient.h"
#include "genie/ops/products.h"
#include "genie/ops/row_pieces.h"

namespace genie::ops {

constinit CpuKernel<SoftmaxSums(const SoftmaxRows&)> softmax_gradient;

namespace {

using Sums = std::tuple<at::Tensor, at::Tensor>;
using SumsAndGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// Adds the rows' loss and hits, and turns the logits into their gradient if asked to.
void add_softmax(at::Tensor& logits, const at::Tensor& targets, double smoothing, bool gradient,
                 at::Tensor& loss, at::Tensor& correct) {
  const int64_t classes = logits.size(1);
  if (logits.is_cpu() && logits.scalar_type() == at::kFloat) {
    const SoftmaxSums sums = softmax_gradient(SoftmaxRows{.logits = logits.mutable_data_ptr<float>(),
                                                          .targets = targets.const_data_ptr<int64_t>(),
                                                          .rows = logits.size(0),
                                                          .classes = classes,
                                                          .smoothing = static_cast<float>(smoothing),
                                                          .gradient = gradient});
    loss.add_(sums.loss);
    correct.add_(sums.correct);
    return;
  }
  const double share = smoothing / static_cast<double>(classes);
  const at::Tensor places = targets.unsqueeze(1), total = logits.logsumexp({1}, true),
                   picked = logits.gather(1, places);
  loss.add_((total - (1 - smoothing) * picked).sum() - share * logits.sum());
  correct.add_((picked >= logits.amax({1}, true)).sum());
  if (gradient) {
    logits.sub_(total).exp_().sub_(share);
    logits.scatter_add_(1, places, at::full_like(picked, smoothing - 1));
  }
}

SumsAndGradients in_pieces(const at::Tensor& x_, const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias, const at::Tensor& targets_,
                           double smoothing, bool gradients) {
  check_linear_cross_entropy(x_, weight, bias, targets_, smoothing);
  const at::Tensor x = x_.contiguous(), targets = targets_.contiguous();
  const int64_t rows = x.size(0), classes = weight.size(0);
  if (x.is_cpu() && rows > 0) {
    const auto [least, most] = targets.aminmax();
    TORCH_CHECK_INDEX(least.item<int64_t>() >= 0 && most.item<int64_t>() < classes,
                      "genie::linear_cross_entropy: targets must lie in [0, ", classes, "), got ",
                      least.item<int64_t>(), " to ", most.item<int64_t>());
  }
  const auto dtype = x.scalar_type(), exact = sum_type(dtype);
  const auto wide = x.options().dtype(exact);
  at::Tensor loss = at::zeros({}, wide.dtype(at::kDouble)), correct = at::zeros({}, wide.dtype(at::kLong));
  const at::Tensor to_x = at::empty({gradients ? rows : 0, x.size(1)}, x.options()),
                   to_weight = at::zeros({gradients ? classes : 0, x.size(1)}, wide),
                   to_bias = at::zeros({gradients && bias ? classes : 0}, wide);
  const at::Tensor weight_factor = as_factor(weight, dtype);
  const std::optional<at::Tensor> start = as_factor(bias, dtype);
  const int64_t piece = rows_at_once(classes);
  at::Tensor logits_of_piece = at::empty({std::min(piece, rows), classes}, wide);
  for (int64_t row = 0; row < rows; row += piece) {
    const int64_t count = std::min(piece, rows - row);
    const at::Tensor x_factor = as_factor(x.narrow(0, row, count), dtype);
    at::Tensor logits = logits_of_piece.narrow(0, 0, count);
    multiply_into(logits, x_factor, weight_factor.t(), start);
    add_softmax(logits, targets.narrow(0, row, count), smoothing, gradients, loss, correct);
    if (!gradients) continue;
    const at::Tensor grad = as_factor(logits, dtype);
    multiply_into(to_x.narrow(0, row, count), grad, weight_factor);
    add_product(to_weight, grad.t(), x_factor);
    if (bias) to_bias.add_(logits.sum(0));
  }
  return {loss.to(exact), correct, to_x, to_weight.to(dtype), to_bias.to(dtype)};
}

Sums without_gradients(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                       const at::Tensor& targets, double smoothing) {
  const auto results = in_pieces(x, weight, bias, targets, smoothing, false);
  return {std::get<0>(results), std::get<1>(results)};
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, CompositeExplicitAutograd, m) {
  m.impl("linear_cross_entropy", without_gradients);
  m.impl("_linear_cross_entropy", in_pieces);
}

}  // namespace genie::ops
