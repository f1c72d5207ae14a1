#include "genie/ops/linear_cross_entropy/linear_cross_entropy.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <vector>

#include "genie/ops/autograd_helpers.h"
#include "genie/ops/products.h"

namespace genie::ops {
namespace {

constexpr const char* name = "genie::linear_cross_entropy";
constexpr const char* keeping_name = "genie::_linear_cross_entropy";
using OptionalTensor = std::optional<at::Tensor>;
using Sums = std::tuple<at::Tensor, at::Tensor>;
using SumsAndGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Signature = Sums(const at::Tensor&, const at::Tensor&, const OptionalTensor&, const at::Tensor&,
                       double);
using Keeping = SumsAndGradients(const at::Tensor&, const at::Tensor&, const OptionalTensor&,
                                 const at::Tensor&, double, bool);
using Variables = torch::autograd::variable_list;

at::TensorOptions exact_options(const at::Tensor& x) { return x.options().dtype(sum_type(x.scalar_type())); }

SumsAndGradients keeping_meta(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                              const at::Tensor& targets, double smoothing, bool gradients) {
  check_linear_cross_entropy(x, weight, bias, targets, smoothing);
  const c10::SymInt none = 0, classes = weight.sym_size(0), channels = x.sym_size(1);
  return {at::empty({}, exact_options(x)), at::empty({}, x.options().dtype(at::kLong)),
          at::empty_symint({gradients ? x.sym_size(0) : none, channels}, x.options()),
          at::empty_symint({gradients ? classes : none, channels}, x.options()),
          at::empty_symint({gradients && bias ? classes : none}, x.options())};
}

Sums meta(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
          const at::Tensor& targets, double smoothing) {
  const auto results = keeping_meta(x, weight, bias, targets, smoothing, false);
  return {std::get<0>(results), std::get<1>(results)};
}

class LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
 public:
  static Variables forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                           const at::Tensor& weight, const OptionalTensor& bias, const at::Tensor& targets,
                           double smoothing) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [loss, correct, to_x, to_weight, to_bias] =
        dispatch<Keeping>(keeping_name, x, weight, bias, targets, smoothing, true);
    context->save_for_backward({to_x, to_weight, bias ? to_bias : at::Tensor()});
    context->mark_non_differentiable({correct});
    return {loss, correct};
  }

  static Variables backward(torch::autograd::AutogradContext* context, const Variables& grads) {
    const auto saved = context->get_saved_variables();
    const auto scaled = [&](const at::Tensor& gradient) {
      if (!gradient.defined()) return gradient;
      return once_differentiable(name, gradient * grads[0].to(gradient.scalar_type()), {grads[0]});
    };
    return {scaled(saved[0]), scaled(saved[1]), scaled(saved[2]), {}, {}};
  }
};

Sums autograd(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
              const at::Tensor& targets, double smoothing) {
  if (differentiated({x, weight, bias.value_or(at::Tensor())})) {
    const auto results = LinearCrossEntropy::apply(x, weight, bias, targets, smoothing);
    return {results[0], results[1]};
  }
  return dispatch_below_autograd<Signature>(name, x, weight, bias, targets, smoothing);
}

/// The products in the lower precision, the softmax in float32.
Sums autocast(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
              const at::Tensor& targets, double smoothing) {
  const NoAutocast no_autocast;
  return dispatch<Signature>(name, autocast_cast(x), autocast_cast(weight), autocast_cast(bias), targets,
                             smoothing);
}

}  // namespace

void check_linear_cross_entropy(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                                const at::Tensor& targets, double label_smoothing) {
  TORCH_CHECK_VALUE(x.dim() == 2 && weight.dim() == 2 && x.sym_size(1) == weight.sym_size(1) &&
                        weight.sym_size(0) > 0 && weight.sym_size(1) > 0,
                    name, ": x must be (M, C) and weight (K, C), got ", x.sym_sizes(), " and ",
                    weight.sym_sizes());
  TORCH_CHECK_VALUE(targets.dim() == 1 && targets.sym_size(0) == x.sym_size(0), name,
                    ": targets must be (M), one for each of the ", x.sym_size(0), " rows of x, got ",
                    targets.sym_sizes());
  TORCH_CHECK_VALUE(!bias || (bias->dim() == 1 && bias->sym_size(0) == weight.sym_size(0)), name,
                    ": bias must be (K), with K = ", weight.sym_size(0), ", got ",
                    bias ? bias->sym_sizes() : c10::SymIntArrayRef());
  TORCH_CHECK_VALUE(label_smoothing >= 0 && label_smoothing <= 1, name,
                    ": label_smoothing must be in [0, 1], got ", label_smoothing);
  const auto dtype = x.scalar_type();
  TORCH_CHECK_TYPE(
      at::isFloatingType(dtype) && weight.scalar_type() == dtype && (!bias || bias->scalar_type() == dtype),
      name, ": x, weight and bias must be of one floating type, got ", dtype, ", ", weight.scalar_type(),
      bias ? " and " : "", bias ? c10::toString(bias->scalar_type()) : "");
  TORCH_CHECK_TYPE(targets.scalar_type() == at::kLong, name, ": targets must be int64, got ",
                   targets.scalar_type());
  for (const at::Tensor& other : {weight, targets, bias ? *bias : weight}) {
    TORCH_CHECK_VALUE(other.device() == x.device(), name, ": all must be on one device, got ", x.device(),
                      " and ", other.device());
  }
}

Sums linear_cross_entropy(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                          const at::Tensor& targets, double label_smoothing) {
  return dispatch<Signature>(name, x, weight, bias, targets, label_smoothing);
}

TORCH_LIBRARY_FRAGMENT(genie, m) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  m.def(
      "linear_cross_entropy(Tensor x, Tensor weight, Tensor? bias, Tensor targets, float label_smoothing=0.) "
      "-> (Tensor loss, Tensor correct)",
      tags);
  m.def(
      "_linear_cross_entropy(Tensor x, Tensor weight, Tensor? bias, Tensor targets, float label_smoothing, "
      "bool gradients) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
      tags);
}

TORCH_LIBRARY_IMPL(genie, Meta, m) {
  m.impl("linear_cross_entropy", meta);
  m.impl("_linear_cross_entropy", keeping_meta);
}

TORCH_LIBRARY_IMPL(genie, Autograd, m) { m.impl("linear_cross_entropy", autograd); }
TORCH_LIBRARY_IMPL(genie, Autocast, m) { m.impl("linear_cross_entropy", autocast); }
TORCH_LIBRARY_IMPL(genie, AutocastCPU, m) { m.impl("linear_cross_entropy", autocast); }

}  // namespace genie::ops
