#include "genie/ops/residual_branch/residual_branch.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "genie/ops/autograd_helpers.h"
#include "genie/ops/residual_branch/checks.h"

namespace genie::ops {
namespace {

using OptionalTensor = std::optional<at::Tensor>;
using Context = torch::autograd::AutogradContext;
using Variables = torch::autograd::variable_list;
using Tensors3 = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Tensors5 = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Tensors7 =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

constexpr const char* norm_linear_name = "genie::norm_linear";
constexpr const char* norm_linear_backward_name = "genie::_norm_linear_backward";
constexpr const char* linear_residual_name = "genie::linear_residual";
constexpr const char* linear_residual_backward_name = "genie::_linear_residual_backward";
constexpr const char* mlp_name = "genie::norm_mlp_residual";
constexpr const char* mlp_keeping_name = "genie::_norm_mlp_residual";
constexpr const char* mlp_backward_name = "genie::_norm_mlp_residual_backward";

using NormLinear = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, double,
                              const at::Tensor&, const OptionalTensor&);
using NormLinearBackward = Tensors5(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                    const at::Tensor&, double, const at::Tensor&);
using LinearResidual = at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&,
                                  const at::Tensor&);
using LinearResidualBackward = Tensors3(const at::Tensor&, const at::Tensor&, const at::Tensor&);
using Mlp = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, double, const at::Tensor&,
                       const at::Tensor&, const at::Tensor&, const at::Tensor&);
using MlpKeeping = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                      double, const at::Tensor&, const at::Tensor&,
                                                      const at::Tensor&, const at::Tensor&, bool);
using MlpBackward = Tensors7(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                             double, const at::Tensor&, const at::Tensor&, const at::Tensor&);

std::vector<c10::SymInt> with_last(const at::Tensor& x, const c10::SymInt& size) {
  auto shape = x.sym_sizes().vec();
  shape.back() = size;
  return shape;
}

at::Tensor norm_linear_meta(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                            double, const at::Tensor& weight, const OptionalTensor& bias) {
  check_norm_linear(x, norm_weight, norm_bias, weight, bias);
  return at::empty_symint(with_last(x, weight.sym_size(0)), weight.options());
}

Tensors5 norm_linear_backward_meta(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& norm_weight,
                                   const at::Tensor& norm_bias, double, const at::Tensor& weight) {
  check_same_device(norm_linear_backward_name, grad, x);
  return {at::empty_like(x, at::MemoryFormat::Contiguous), at::empty_like(norm_weight),
          at::empty_like(norm_bias), at::empty_like(weight),
          at::empty_symint({weight.sym_size(0)}, weight.options())};
}

at::Tensor linear_residual_meta(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                                const at::Tensor& residual) {
  check_linear_residual(x, weight, bias, residual);
  return at::empty_like(residual, at::MemoryFormat::Contiguous);
}

Tensors3 linear_residual_backward_meta(const at::Tensor& grad, const at::Tensor& x,
                                       const at::Tensor& weight) {
  check_same_device(linear_residual_backward_name, grad, x);
  return {at::empty_like(x, at::MemoryFormat::Contiguous), at::empty_like(weight),
          at::empty_symint({weight.sym_size(0)}, weight.options())};
}

std::tuple<at::Tensor, at::Tensor> mlp_keeping_meta(const at::Tensor& x, const at::Tensor& norm_weight,
                                                    const at::Tensor& norm_bias, double,
                                                    const at::Tensor& weight1, const at::Tensor& bias1,
                                                    const at::Tensor& weight2, const at::Tensor& bias2,
                                                    bool keep_hidden) {
  check_norm_mlp_residual(x, norm_weight, norm_bias, weight1, bias1, weight2, bias2);
  const c10::SymInt rows = keep_hidden ? x.sym_numel() / x.sym_size(-1) : c10::SymInt(0);
  return {at::empty_like(x, at::MemoryFormat::Contiguous),
          at::empty_symint({rows, weight1.sym_size(0)}, weight1.options())};
}

at::Tensor mlp_meta(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                    double eps, const at::Tensor& weight1, const at::Tensor& bias1, const at::Tensor& weight2,
                    const at::Tensor& bias2) {
  return std::get<0>(mlp_keeping_meta(x, norm_weight, norm_bias, eps, weight1, bias1, weight2, bias2, false));
}

Tensors7 mlp_backward_meta(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& norm_weight,
                           const at::Tensor& norm_bias, double, const at::Tensor& weight1,
                           const at::Tensor& /*hidden*/, const at::Tensor& weight2) {
  check_same_device(mlp_backward_name, grad, x);
  const auto bias = [&](const at::Tensor& weight) {
    return at::empty_symint({weight.sym_size(0)}, weight.options());
  };
  return {at::empty_like(x, at::MemoryFormat::Contiguous),
          at::empty_like(norm_weight),
          at::empty_like(norm_bias),
          at::empty_like(weight1),
          bias(weight1),
          at::empty_like(weight2),
          bias(weight2)};
}

class NormLinearFunction : public torch::autograd::Function<NormLinearFunction> {
 public:
  static at::Tensor forward(Context* context, const at::Tensor& x, const at::Tensor& norm_weight,
                            const at::Tensor& norm_bias, double eps, const at::Tensor& weight,
                            const OptionalTensor& bias) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({x, norm_weight, norm_bias, weight});
    context->saved_data["eps"] = eps;
    context->saved_data["bias"] = bias.has_value();
    return dispatch<NormLinear>(norm_linear_name, x, norm_weight, norm_bias, eps, weight, bias);
  }

  static Variables backward(Context* context, const Variables& grads) {
    const NoAutocast no_autocast;
    const auto saved = context->get_saved_variables();
    const auto [x, norm_weight, norm_bias, weight, bias] =
        dispatch<NormLinearBackward>(norm_linear_backward_name, grads[0], saved[0], saved[1], saved[2],
                                     context->saved_data["eps"].toDouble(), saved[3]);
    return {x,  norm_weight, norm_bias,
            {}, weight,      context->saved_data["bias"].toBool() ? bias : at::Tensor()};
  }
};

class LinearResidualFunction : public torch::autograd::Function<LinearResidualFunction> {
 public:
  static at::Tensor forward(Context* context, const at::Tensor& x, const at::Tensor& weight,
                            const OptionalTensor& bias, const at::Tensor& residual) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({x, weight});
    context->saved_data["bias"] = bias.has_value();
    return dispatch<LinearResidual>(linear_residual_name, x, weight, bias, residual);
  }

  static Variables backward(Context* context, const Variables& grads) {
    const NoAutocast no_autocast;
    const auto saved = context->get_saved_variables();
    const auto [x, weight, bias] =
        dispatch<LinearResidualBackward>(linear_residual_backward_name, grads[0], saved[0], saved[1]);
    return {x, weight, context->saved_data["bias"].toBool() ? bias : at::Tensor(), grads[0]};
  }
};

class MlpFunction : public torch::autograd::Function<MlpFunction> {
 public:
  static at::Tensor forward(Context* context, const at::Tensor& x, const at::Tensor& norm_weight,
                            const at::Tensor& norm_bias, double eps, const at::Tensor& weight1,
                            const at::Tensor& bias1, const at::Tensor& weight2, const at::Tensor& bias2) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [out, hidden] = dispatch<MlpKeeping>(mlp_keeping_name, x, norm_weight, norm_bias, eps, weight1,
                                                    bias1, weight2, bias2, true);
    context->save_for_backward({x, norm_weight, norm_bias, weight1, hidden, weight2});
    context->saved_data["eps"] = eps;
    return out;
  }

  static Variables backward(Context* context, const Variables& grads) {
    const NoAutocast no_autocast;
    const auto saved = context->get_saved_variables();
    const auto [x, norm_weight, norm_bias, weight1, bias1, weight2, bias2] =
        dispatch<MlpBackward>(mlp_backward_name, grads[0], saved[0], saved[1], saved[2],
                              context->saved_data["eps"].toDouble(), saved[3], saved[4], saved[5]);
    return {x, norm_weight, norm_bias, {}, weight1, bias1, weight2, bias2};
  }
};

at::Tensor norm_linear_autograd(const at::Tensor& x, const at::Tensor& norm_weight,
                                const at::Tensor& norm_bias, double eps, const at::Tensor& weight,
                                const OptionalTensor& bias) {
  return NormLinearFunction::apply(x, norm_weight, norm_bias, eps, weight, bias);
}

at::Tensor linear_residual_autograd(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                                    const at::Tensor& residual) {
  return LinearResidualFunction::apply(x, weight, bias, residual);
}

at::Tensor mlp_autograd(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                        double eps, const at::Tensor& weight1, const at::Tensor& bias1,
                        const at::Tensor& weight2, const at::Tensor& bias2) {
  if (differentiated({x, norm_weight, norm_bias, weight1, bias1, weight2, bias2})) {
    return MlpFunction::apply(x, norm_weight, norm_bias, eps, weight1, bias1, weight2, bias2);
  }
  return dispatch_below_autograd<Mlp>(mlp_name, x, norm_weight, norm_bias, eps, weight1, bias1, weight2,
                                      bias2);
}

/// Each of the results, made to refuse a second derivative.
template <class Tuple>
Tuple refusing(const char* op, const Tuple& results, at::TensorList inputs) {
  return std::apply([&](const auto&... result) { return Tuple{once_differentiable(op, result, inputs)...}; },
                    results);
}

Tensors5 norm_linear_backward_autograd(const at::Tensor& grad, const at::Tensor& x,
                                       const at::Tensor& norm_weight, const at::Tensor& norm_bias, double eps,
                                       const at::Tensor& weight) {
  const auto results = dispatch_below_autograd<NormLinearBackward>(norm_linear_backward_name, grad, x,
                                                                   norm_weight, norm_bias, eps, weight);
  return refusing(norm_linear_name, results, {grad, x, norm_weight, norm_bias, weight});
}

Tensors3 linear_residual_backward_autograd(const at::Tensor& grad, const at::Tensor& x,
                                           const at::Tensor& weight) {
  const auto results =
      dispatch_below_autograd<LinearResidualBackward>(linear_residual_backward_name, grad, x, weight);
  return refusing(linear_residual_name, results, {grad, x, weight});
}

Tensors7 mlp_backward_autograd(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& norm_weight,
                               const at::Tensor& norm_bias, double eps, const at::Tensor& weight1,
                               const at::Tensor& hidden, const at::Tensor& weight2) {
  const auto results = dispatch_below_autograd<MlpBackward>(mlp_backward_name, grad, x, norm_weight,
                                                            norm_bias, eps, weight1, hidden, weight2);
  return refusing(mlp_name, results, {grad, x, norm_weight, norm_bias, weight1, hidden, weight2});
}

}  // namespace

at::Tensor norm_linear(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                       double eps, const at::Tensor& weight, const OptionalTensor& bias) {
  return dispatch<NormLinear>(norm_linear_name, x, norm_weight, norm_bias, eps, weight, bias);
}

at::Tensor linear_residual(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                           const at::Tensor& residual) {
  return dispatch<LinearResidual>(linear_residual_name, x, weight, bias, residual);
}

at::Tensor norm_mlp_residual(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                             double eps, const at::Tensor& weight1, const at::Tensor& bias1,
                             const at::Tensor& weight2, const at::Tensor& bias2) {
  return dispatch<Mlp>(mlp_name, x, norm_weight, norm_bias, eps, weight1, bias1, weight2, bias2);
}

TORCH_LIBRARY_FRAGMENT(genie, m) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  m.def(
      "norm_linear(Tensor x, Tensor norm_weight, Tensor norm_bias, float eps, Tensor weight, Tensor? bias) "
      "-> "
      "Tensor",
      tags);
  m.def(
      "_norm_linear_backward(Tensor grad, Tensor x, Tensor norm_weight, Tensor norm_bias, float eps, Tensor "
      "weight) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
      tags);
  m.def("linear_residual(Tensor x, Tensor weight, Tensor? bias, Tensor residual) -> Tensor", tags);
  m.def("_linear_residual_backward(Tensor grad, Tensor x, Tensor weight) -> (Tensor, Tensor, Tensor)", tags);
  m.def(
      "norm_mlp_residual(Tensor x, Tensor norm_weight, Tensor norm_bias, float eps, Tensor weight1, Tensor "
      "bias1, Tensor weight2, Tensor bias2) -> Tensor",
      tags);
  m.def(
      "_norm_mlp_residual(Tensor x, Tensor norm_weight, Tensor norm_bias, float eps, Tensor weight1, Tensor "
      "bias1, Tensor weight2, Tensor bias2, bool keep_hidden) -> (Tensor, Tensor)",
      tags);
  m.def(
      "_norm_mlp_residual_backward(Tensor grad, Tensor x, Tensor norm_weight, Tensor norm_bias, float eps, "
      "Tensor weight1, Tensor hidden, Tensor weight2) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor)",
      tags);
}

TORCH_LIBRARY_IMPL(genie, Meta, m) {
  m.impl("norm_linear", norm_linear_meta);
  m.impl("_norm_linear_backward", norm_linear_backward_meta);
  m.impl("linear_residual", linear_residual_meta);
  m.impl("_linear_residual_backward", linear_residual_backward_meta);
  m.impl("norm_mlp_residual", mlp_meta);
  m.impl("_norm_mlp_residual", mlp_keeping_meta);
  m.impl("_norm_mlp_residual_backward", mlp_backward_meta);
}

TORCH_LIBRARY_IMPL(genie, Autograd, m) {
  m.impl("norm_linear", norm_linear_autograd);
  m.impl("_norm_linear_backward", norm_linear_backward_autograd);
  m.impl("linear_residual", linear_residual_autograd);
  m.impl("_linear_residual_backward", linear_residual_backward_autograd);
  m.impl("norm_mlp_residual", mlp_autograd);
  m.impl("_norm_mlp_residual_backward", mlp_backward_autograd);
}

}  // namespace genie::ops
