#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "genie/ops/residual_branch/checks.h"
#include "genie/ops/residual_branch/gelu.h"
#include "genie/ops/residual_branch/layer_norm.h"
#include "genie/ops/residual_branch/parts.h"

namespace genie::ops {

constinit CpuKernel<void(float*, const float*, float*, int64_t, int64_t)> gelu_forward;
constinit CpuKernel<void(const float*, float*, float*, int64_t, int64_t, float*)> gelu_again;
constinit CpuKernel<void(const LayerNormRows&, const float*, float, float*)> layer_norm;
constinit CpuKernel<void(const LayerNormRows&, const float*, const float*, float*, float*)>
    layer_norm_gradient;

namespace {

using OptionalTensor = std::optional<at::Tensor>;

/// Rows done at a time, so that no intermediate result is larger than 16 MB. Fewer would stay nearer to the
/// processor, but the gradients of the weights, sums over these rows, then run a third slower.
int64_t rows_at_once(int64_t width) { return std::clamp<int64_t>((1 << 22) / width, 256, 65536); }

LayerNormRows layer_norm_rows(const at::Tensor& x, const at::Tensor& weight, const Normalized& normal) {
  return {x.const_data_ptr<float>(),
          weight.const_data_ptr<float>(),
          normal.mean.mutable_data_ptr<float>(),
          normal.rstd.mutable_data_ptr<float>(),
          x.size(0),
          x.size(1)};
}

/// torch's LayerNorm; in float32 ours, which takes half its time.
Normalized normalize_rows(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  if (x.scalar_type() != at::kFloat) return normalize(x, weight, bias, eps);
  const Normalized normal{at::empty_like(x), at::empty({x.size(0)}, x.options()),
                          at::empty({x.size(0)}, x.options())};
  layer_norm(layer_norm_rows(x, weight.contiguous(), normal), bias.contiguous().const_data_ptr<float>(),
             static_cast<float>(eps), normal.value.mutable_data_ptr<float>());
  return normal;
}

/// The backward pass of linear(layer_norm(x)), a piece of the rows at a time. The bias of the linear map is
/// left to the caller.
class NormLinearGradients {
 public:
  NormLinearGradients(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                      double eps, const at::Tensor& weight)
      : to_x(at::empty_like(x)),
        to_weight(at::zeros_like(weight)),
        to_norm_(at::zeros({2, x.size(1)}, x.options())),
        x_(x),
        norm_weight_(norm_weight.contiguous()),
        norm_bias_(norm_bias.contiguous()),
        weight_(weight),
        eps_(eps) {}

  /// `grad`: of the results of row `row` and those after it. `residual`: what x's gradient has besides.
  void add(int64_t row, const at::Tensor& grad, const OptionalTensor& residual = std::nullopt) {
    const at::Tensor x = x_.narrow(0, row, grad.size(0));
    const Normalized normal = normalize_rows(x, norm_weight_, norm_bias_, eps_);
    to_weight.addmm_(grad.t(), normal.value);
    differentiate_norm(grad.mm(weight_), x, normal, residual, to_x.narrow(0, row, grad.size(0)));
  }

  at::Tensor to_norm_weight() const { return to_norm_[0]; }
  at::Tensor to_norm_bias() const { return to_norm_[1]; }

  const at::Tensor to_x, to_weight;

 private:
  void differentiate_norm(const at::Tensor& grad, const at::Tensor& x, const Normalized& normal,
                          const OptionalTensor& residual, const at::Tensor& to_x) const {
    if (x.scalar_type() == at::kFloat) {
      layer_norm_gradient(layer_norm_rows(x, norm_weight_, normal), grad.const_data_ptr<float>(),
                          residual ? residual->const_data_ptr<float>() : nullptr,
                          to_x.mutable_data_ptr<float>(), to_norm_.mutable_data_ptr<float>());
      return;
    }
    const auto [dx, dw, db] = at::native_layer_norm_backward(grad, x, {x.size(1)}, normal.mean, normal.rstd,
                                                             norm_weight_, norm_bias_, {true, true, true});
    to_norm_.add_(at::stack({dw, db}));
    to_x.copy_(residual ? dx + *residual : dx);
  }

  const at::Tensor to_norm_, x_, norm_weight_, norm_bias_, weight_;
  double eps_;
};

/// Adds the bias to `hidden` and writes the activation of that to `out`.
void activate(at::Tensor& hidden, const at::Tensor& bias, at::Tensor& out) {
  if (hidden.scalar_type() == at::kFloat) {
    gelu_forward(hidden.mutable_data_ptr<float>(), bias.const_data_ptr<float>(),
                 out.mutable_data_ptr<float>(), hidden.size(0), hidden.size(1));
  } else {
    hidden.add_(bias);
    at::gelu_out(out, hidden);
  }
}

/// The activation again, and the gradient of its input in place of that of its output; the sum of that over
/// rows is added to `to_bias`.
void activate_again(const at::Tensor& in, at::Tensor& out, at::Tensor& grad, const at::Tensor& to_bias) {
  if (in.scalar_type() == at::kFloat) {
    gelu_again(in.const_data_ptr<float>(), out.mutable_data_ptr<float>(), grad.mutable_data_ptr<float>(),
               in.size(0), in.size(1), to_bias.mutable_data_ptr<float>());
  } else {
    at::gelu_out(out, in);
    grad.copy_(at::gelu_backward(grad, in));
    to_bias.add_(grad.sum(0));
  }
}

at::Tensor norm_linear_cpu(const at::Tensor& x_, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                           double eps, const at::Tensor& weight, const OptionalTensor& bias) {
  check_norm_linear(x_, norm_weight, norm_bias, weight, bias);
  const at::Tensor x = as_rows(x_);
  const int64_t rows = x.size(0), width = weight.size(0), piece = rows_at_once(width);
  const at::Tensor out = at::empty({rows, width}, x.options());
  for (int64_t row = 0; row < rows; row += piece) {
    const int64_t count = std::min(piece, rows - row);
    at::Tensor part = out.narrow(0, row, count);
    const at::Tensor normal = normalize_rows(x.narrow(0, row, count), norm_weight, norm_bias, eps).value;
    if (bias) {
      at::addmm_out(part, *bias, normal, weight.t());
    } else {
      at::mm_out(part, normal, weight.t());
    }
  }
  std::vector<int64_t> shape = x_.sizes().vec();
  shape.back() = width;
  return out.view(shape);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> norm_linear_backward_cpu(
    const at::Tensor& grad_, const at::Tensor& x_, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
    double eps, const at::Tensor& weight) {
  const at::Tensor x = as_rows(x_), grad = as_rows(grad_);
  const int64_t rows = x.size(0), piece = rows_at_once(weight.size(0));
  NormLinearGradients gradients(x, norm_weight, norm_bias, eps, weight);
  for (int64_t row = 0; row < rows; row += piece) {
    gradients.add(row, grad.narrow(0, row, std::min(piece, rows - row)));
  }
  return {gradients.to_x.view(x_.sizes()), gradients.to_norm_weight(), gradients.to_norm_bias(),
          gradients.to_weight, grad.sum(0)};
}

at::Tensor linear_residual_cpu(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                               const at::Tensor& residual) {
  check_linear_residual(x, weight, bias, residual);
  return add_linear(residual, x, weight, bias);
}

std::tuple<at::Tensor, at::Tensor> norm_mlp_residual_cpu(const at::Tensor& x_, const at::Tensor& norm_weight,
                                                         const at::Tensor& norm_bias, double eps,
                                                         const at::Tensor& weight1, const at::Tensor& bias1,
                                                         const at::Tensor& weight2, const at::Tensor& bias2,
                                                         bool keep_hidden) {
  check_norm_mlp_residual(x_, norm_weight, norm_bias, weight1, bias1, weight2, bias2);
  const at::Tensor x = as_rows(x_);
  const at::Tensor bias = bias1.contiguous();
  const int64_t rows = x.size(0), width = weight1.size(0), piece = rows_at_once(width);
  const int64_t most = std::min(piece, rows);
  const at::Tensor out = at::empty_like(x),
                   hidden = at::empty({keep_hidden ? rows : most, width}, x.options());
  const at::Tensor active = at::empty({most, width}, x.options());
  for (int64_t row = 0; row < rows; row += piece) {
    const int64_t count = std::min(piece, rows - row);
    const at::Tensor x_part = x.narrow(0, row, count);
    at::Tensor hidden_part = hidden.narrow(0, keep_hidden ? row : 0, count),
               active_part = active.narrow(0, 0, count), out_part = out.narrow(0, row, count);
    at::mm_out(hidden_part, normalize_rows(x_part, norm_weight, norm_bias, eps).value, weight1.t());
    activate(hidden_part, bias, active_part);
    at::add_out(out_part, x_part, bias2);
    out_part.addmm_(active_part, weight2.t());
  }
  return {out.view(x_.sizes()), keep_hidden ? hidden : at::empty({0, width}, x.options())};
}

at::Tensor norm_mlp_residual_alone_cpu(const at::Tensor& x, const at::Tensor& norm_weight,
                                       const at::Tensor& norm_bias, double eps, const at::Tensor& weight1,
                                       const at::Tensor& bias1, const at::Tensor& weight2,
                                       const at::Tensor& bias2) {
  return std::get<0>(
      norm_mlp_residual_cpu(x, norm_weight, norm_bias, eps, weight1, bias1, weight2, bias2, false));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>
norm_mlp_residual_backward_cpu(const at::Tensor& grad_, const at::Tensor& x_, const at::Tensor& norm_weight,
                               const at::Tensor& norm_bias, double eps, const at::Tensor& weight1,
                               const at::Tensor& hidden, const at::Tensor& weight2) {
  const at::Tensor x = as_rows(x_), grad = as_rows(grad_);
  const int64_t rows = x.size(0), width = weight1.size(0), piece = rows_at_once(width);
  NormLinearGradients first(x, norm_weight, norm_bias, eps, weight1);
  const at::Tensor to_bias1 = at::zeros({width}, x.options()), to_weight2 = at::zeros_like(weight2),
                   to_bias2 = grad.sum(0);
  const int64_t most = std::min(piece, rows);
  const at::Tensor active = at::empty({most, width}, x.options()), to_hidden = at::empty_like(active);
  for (int64_t row = 0; row < rows; row += piece) {
    const int64_t count = std::min(piece, rows - row);
    const at::Tensor grad_part = grad.narrow(0, row, count);
    at::Tensor active_part = active.narrow(0, 0, count), to_hidden_part = to_hidden.narrow(0, 0, count);
    at::mm_out(to_hidden_part, grad_part, weight2);
    activate_again(hidden.narrow(0, row, count), active_part, to_hidden_part, to_bias1);
    to_weight2.addmm_(grad_part.t(), active_part);
    first.add(row, to_hidden_part, grad_part);
  }
  return {first.to_x.view(x_.sizes()),
          first.to_norm_weight(),
          first.to_norm_bias(),
          first.to_weight,
          to_bias1,
          to_weight2,
          to_bias2};
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, CPU, m) {
  m.impl("norm_linear", norm_linear_cpu);
  m.impl("_norm_linear_backward", norm_linear_backward_cpu);
  m.impl("linear_residual", linear_residual_cpu);
  m.impl("norm_mlp_residual", norm_mlp_residual_alone_cpu);
  m.impl("_norm_mlp_residual", norm_mlp_residual_cpu);
  m.impl("_norm_mlp_residual_backward", norm_mlp_residual_backward_cpu);
}

}  // namespace genie::ops
