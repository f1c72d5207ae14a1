#include <ATen/ATen.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "genie/ops/products.h"
#include "genie/ops/residual_branch/checks.h"
#include "genie/ops/residual_branch/gelu.h"
#include "genie/ops/residual_branch/layer_norm.h"
#include "genie/ops/residual_branch/parts.h"
#include "genie/ops/residual_branch/row_shares.h"

namespace genie::ops {

constinit CpuKernel<void(float*, const float*, float*, int64_t, int64_t)> gelu_forward;
constinit CpuKernel<void(const float*, float*, float*, int64_t, int64_t, float*)> gelu_again;
constinit CpuKernel<void(const LayerNormRows&, const float*, float, float*)> layer_norm;
constinit CpuKernel<void(const LayerNormRows&, const float*, const float*, float*, float*)>
    layer_norm_gradient;

namespace {

using OptionalTensor = std::optional<at::Tensor>;

LayerNormRows layer_norm_rows(const at::Tensor& x, const at::Tensor& weight, const Normalized& normal) {
  return {x.const_data_ptr<float>(),
          weight.const_data_ptr<float>(),
          normal.mean.mutable_data_ptr<float>(),
          normal.rstd.mutable_data_ptr<float>(),
          x.size(0),
          x.size(1)};
}

/// LayerNorm: torch's; in float32 ours, which takes half its time.
struct Norm {
  Norm(const at::Tensor& weight, const at::Tensor& bias, double eps)
      : weight(weight.contiguous()), bias(bias.contiguous()), eps(eps) {}

  Normalized operator()(const at::Tensor& x) const {
    if (x.scalar_type() != at::kFloat) return normalize(x, weight, bias, eps);
    const Normalized normal{at::empty_like(x), at::empty({x.size(0)}, x.options()),
                            at::empty({x.size(0)}, x.options())};
    layer_norm(layer_norm_rows(x, weight, normal), bias.const_data_ptr<float>(), static_cast<float>(eps),
               normal.value.mutable_data_ptr<float>());
    return normal;
  }

  at::Tensor weight, bias;
  double eps;
};

/// The backward pass of linear(layer_norm(x)), a piece of the rows at a time. The bias of the linear map is
/// left to the caller.
class NormLinearGradients {
 public:
  NormLinearGradients(const RowShares& shares, const at::Tensor& x, const Norm& norm,
                      const at::Tensor& weight)
      : to_x(at::empty_like(x)),
        x_(x),
        norm_(norm),
        dtype_(weight.scalar_type()),
        weight_(as_factor(weight, dtype_)),
        to_weight_(shares, weight.sizes(), x.options()),
        to_norm_(shares, {2, x.size(1)}, x.options()) {}

  /// `grad`: of the results of row `row` and those after it. `residual`: what x's gradient has besides.
  void add(int64_t share, int64_t row, const at::Tensor& grad,
           const OptionalTensor& residual = std::nullopt) const {
    const at::Tensor x = x_.narrow(0, row, grad.size(0));
    const Normalized normal = norm_(x);
    const at::Tensor factor = as_factor(grad, dtype_);
    add_product(to_weight_.of(share), factor.t(), as_factor(normal.value, dtype_));
    differentiate_norm(factor.mm(weight_).to(x.scalar_type()), x, normal, residual,
                       to_x.narrow(0, row, grad.size(0)), to_norm_.of(share));
  }

  at::Tensor to_weight() const { return to_weight_.total().to(dtype_); }
  /// By the norm's weight and its bias.
  std::pair<at::Tensor, at::Tensor> to_norm() const {
    const at::Tensor both = to_norm_.total();
    return {both[0], both[1]};
  }

  const at::Tensor to_x;

 private:
  void differentiate_norm(const at::Tensor& grad, const at::Tensor& x, const Normalized& normal,
                          const OptionalTensor& residual, const at::Tensor& to_x,
                          const at::Tensor& to_norm) const {
    if (x.scalar_type() == at::kFloat) {
      layer_norm_gradient(layer_norm_rows(x, norm_.weight, normal), grad.const_data_ptr<float>(),
                          residual ? residual->const_data_ptr<float>() : nullptr,
                          to_x.mutable_data_ptr<float>(), to_norm.mutable_data_ptr<float>());
      return;
    }
    const auto [dx, dw, db] = at::native_layer_norm_backward(grad, x, {x.size(1)}, normal.mean, normal.rstd,
                                                             norm_.weight, norm_.bias, {true, true, true});
    to_norm.add_(at::stack({dw, db}));
    to_x.copy_(residual ? dx + *residual : dx);
  }

  const at::Tensor x_;
  const Norm norm_;
  const at::ScalarType dtype_;
  const at::Tensor weight_;
  const SharedSum to_weight_, to_norm_;
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
  const Norm norm(norm_weight, norm_bias, eps);
  const auto dtype = weight.scalar_type();
  const at::Tensor factor = as_factor(weight, dtype).t();
  const OptionalTensor start = as_factor(bias, dtype);
  const at::Tensor out = at::empty({x.size(0), weight.size(0)}, weight.options());
  RowShares(x.size(0), weight).in_parallel([&](int64_t, const auto& pieces) {
    pieces([&](int64_t row, int64_t count) {
      const at::Tensor normal = norm(x.narrow(0, row, count)).value;
      multiply_into(out.narrow(0, row, count), as_factor(normal, dtype), factor, start);
    });
  });
  std::vector<int64_t> shape = x_.sizes().vec();
  shape.back() = weight.size(0);
  return out.view(shape);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> norm_linear_backward_cpu(
    const at::Tensor& grad_, const at::Tensor& x_, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
    double eps, const at::Tensor& weight) {
  const at::Tensor x = as_rows(x_), grad = as_rows(grad_);
  const RowShares shares(x.size(0), weight);
  const NormLinearGradients gradients(shares, x, Norm(norm_weight, norm_bias, eps), weight);
  const SharedSum to_bias(shares, {weight.size(0)}, x.options());
  shares.in_parallel([&](int64_t share, const auto& pieces) {
    pieces([&](int64_t row, int64_t count) {
      const at::Tensor grad_part = grad.narrow(0, row, count);
      gradients.add(share, row, grad_part);
      to_bias.of(share).add_(grad_part.sum(0, false, x.scalar_type()));
    });
  });
  const auto [to_norm_weight, to_norm_bias] = gradients.to_norm();
  return {gradients.to_x.view(x_.sizes()), to_norm_weight, to_norm_bias, gradients.to_weight(),
          to_bias.total().to(weight.scalar_type())};
}

at::Tensor linear_residual_cpu(const at::Tensor& x_, const at::Tensor& weight, const OptionalTensor& bias,
                               const at::Tensor& residual_) {
  check_linear_residual(x_, weight, bias, residual_);
  const at::Tensor x = as_rows(x_), residual = as_rows(residual_), out = at::empty_like(residual);
  const auto dtype = weight.scalar_type();
  const at::Tensor factor = as_factor(weight, dtype).t();
  RowShares(x.size(0), weight).in_parallel([&](int64_t, const auto& pieces) {
    pieces([&](int64_t row, int64_t count) {
      at::Tensor part = out.narrow(0, row, count);
      const at::Tensor start = residual.narrow(0, row, count);
      if (bias) {
        at::add_out(part, start, *bias);
      } else {
        part.copy_(start);
      }
      add_product(part, as_factor(x.narrow(0, row, count), dtype), factor);
    });
  });
  return out.view(residual_.sizes());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> linear_residual_backward_cpu(const at::Tensor& grad_,
                                                                            const at::Tensor& x_,
                                                                            const at::Tensor& weight) {
  const at::Tensor x = as_rows(x_), grad = as_rows(grad_), to_x = at::empty_like(x);
  const auto dtype = weight.scalar_type();
  const at::Tensor factor = as_factor(weight, dtype);
  const RowShares shares(x.size(0), weight);
  const SharedSum to_weight(shares, weight.sizes(), grad.options()),
      to_bias(shares, {weight.size(0)}, grad.options());
  shares.in_parallel([&](int64_t share, const auto& pieces) {
    pieces([&](int64_t row, int64_t count) {
      const at::Tensor grad_part = grad.narrow(0, row, count), grad_factor = as_factor(grad_part, dtype);
      multiply_into(to_x.narrow(0, row, count), grad_factor, factor);
      add_product(to_weight.of(share), grad_factor.t(), as_factor(x.narrow(0, row, count), dtype));
      to_bias.of(share).add_(grad_part.sum(0));
    });
  });
  return {to_x.view(x_.sizes()), to_weight.total().to(dtype), to_bias.total().to(dtype)};
}

std::tuple<at::Tensor, at::Tensor> norm_mlp_residual_cpu(const at::Tensor& x_, const at::Tensor& norm_weight,
                                                         const at::Tensor& norm_bias, double eps,
                                                         const at::Tensor& weight1, const at::Tensor& bias1,
                                                         const at::Tensor& weight2, const at::Tensor& bias2,
                                                         bool keep_hidden) {
  check_norm_mlp_residual(x_, norm_weight, norm_bias, weight1, bias1, weight2, bias2);
  const auto wide = x_.scalar_type(), dtype = weight1.scalar_type();
  const at::Tensor x = as_rows(x_), bias = bias1.to(wide).contiguous(),
                   factor1 = as_factor(weight1, dtype).t(), factor2 = as_factor(weight2, dtype).t();
  const Norm norm(norm_weight, norm_bias, eps);
  const int64_t rows = x.size(0), width = weight1.size(0);
  const at::Tensor out = at::empty_like(x),
                   hidden = at::empty({keep_hidden ? rows : 0, width}, weight1.options());
  const bool in_place = keep_hidden && dtype == wide;
  const RowShares shares(rows, weight1);
  shares.in_parallel([&](int64_t, const auto& pieces) {
    const at::Tensor active = at::empty({shares.piece(), width}, x.options()),
                     here = in_place ? hidden : at::empty_like(active);
    pieces([&](int64_t row, int64_t count) {
      const at::Tensor x_part = x.narrow(0, row, count);
      at::Tensor hidden_part = here.narrow(0, in_place ? row : 0, count),
                 active_part = active.narrow(0, 0, count), out_part = out.narrow(0, row, count);
      multiply_into(hidden_part, as_factor(norm(x_part).value, dtype), factor1);
      activate(hidden_part, bias, active_part);
      if (keep_hidden && !in_place) hidden.narrow(0, row, count).copy_(hidden_part);
      at::add_out(out_part, x_part, bias2);
      add_product(out_part, as_factor(active_part, dtype), factor2);
    });
  });
  return {out.view(x_.sizes()), hidden};
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
  const auto wide = x_.scalar_type(), dtype = weight1.scalar_type();
  const at::Tensor x = as_rows(x_), grad = as_rows(grad_), factor2 = as_factor(weight2, dtype);
  const int64_t width = weight1.size(0);
  const RowShares shares(x.size(0), weight1);
  const NormLinearGradients first(shares, x, Norm(norm_weight, norm_bias, eps), weight1);
  const SharedSum to_bias1(shares, {width}, x.options()), to_weight2(shares, weight2.sizes(), x.options()),
      to_bias2(shares, {weight2.size(0)}, x.options());
  shares.in_parallel([&](int64_t share, const auto& pieces) {
    const at::Tensor active = at::empty({shares.piece(), width}, x.options()),
                     to_hidden = at::empty_like(active);
    pieces([&](int64_t row, int64_t count) {
      const at::Tensor grad_part = grad.narrow(0, row, count), grad_factor = as_factor(grad_part, dtype);
      at::Tensor active_part = active.narrow(0, 0, count), to_hidden_part = to_hidden.narrow(0, 0, count);
      multiply_into(to_hidden_part, grad_factor, factor2);
      activate_again(hidden.narrow(0, row, count).to(wide), active_part, to_hidden_part, to_bias1.of(share));
      add_product(to_weight2.of(share), grad_factor.t(), as_factor(active_part, dtype));
      to_bias2.of(share).add_(grad_part.sum(0));
      first.add(share, row, to_hidden_part, grad_part);
    });
  });
  const auto [to_norm_weight, to_norm_bias] = first.to_norm();
  return {first.to_x.view(x_.sizes()),
          to_norm_weight,
          to_norm_bias,
          first.to_weight(),
          to_bias1.total().to(dtype),
          to_weight2.total().to(dtype),
          to_bias2.total().to(dtype)};
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, CPU, m) {
  m.impl("norm_linear", norm_linear_cpu);
  m.impl("_norm_linear_backward", norm_linear_backward_cpu);
  m.impl("linear_residual", linear_residual_cpu);
  m.impl("_linear_residual_backward", linear_residual_backward_cpu);
  m.impl("norm_mlp_residual", norm_mlp_residual_alone_cpu);
  m.impl("_norm_mlp_residual", norm_mlp_residual_cpu);
  m.impl("_norm_mlp_residual_backward", norm_mlp_residual_backward_cpu);
}

}  // namespace genie::ops
