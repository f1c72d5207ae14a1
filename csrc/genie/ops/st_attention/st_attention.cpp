#include "genie/ops/st_attention/st_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "genie/ops/autograd_helpers.h"
#include "genie/ops/float_check.h"

namespace genie::ops {

void check_st_attention(const at::Tensor& qkv, std::string_view axis) {
  TORCH_CHECK_VALUE(axis == "space" || axis == "time",
                    "genie::st_attention: axis is 'space' or 'time', not '", axis, "'");
  TORCH_CHECK_VALUE(qkv.dim() == 6 && qkv.sym_size(3) == 3,
                    "genie::st_attention: qkv must be (B, T, N, 3, heads, head_dim), got ", qkv.sym_sizes());
  TORCH_CHECK_VALUE(qkv.sym_size(5) > 0, "genie::st_attention: head_dim must be positive, got qkv of ",
                    qkv.sym_sizes());
  check_float("genie::st_attention", "qkv", qkv);
}

namespace {

constexpr const char* name = "genie::st_attention";
constexpr const char* backward_name = "genie::_st_attention_backward";
using Signature = at::Tensor(const at::Tensor&, std::string_view, bool, bool, std::optional<double>);
using BackwardSignature = at::Tensor(const at::Tensor&, const at::Tensor&, std::string_view, bool, bool,
                                     std::optional<double>);

at::Tensor meta(const at::Tensor& qkv, std::string_view axis, bool, bool, std::optional<double>) {
  check_st_attention(qkv, axis);
  const auto size = qkv.sym_sizes();
  return at::empty_symint({size[0], size[1], size[2], size[4] * size[5]}, qkv.options());
}

at::Tensor meta_backward(const at::Tensor& grad, const at::Tensor& qkv, std::string_view axis, bool, bool,
                         std::optional<double>) {
  check_st_attention(qkv, axis);
  check_same_device(backward_name, grad, qkv);
  return at::empty_symint(qkv.sym_sizes(), qkv.options());
}

class StAttention : public torch::autograd::Function<StAttention> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& qkv,
                            const std::string& axis, bool causal, bool qk_norm, std::optional<double> scale) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({qkv});
    context->saved_data["axis"] = axis;
    context->saved_data["causal"] = causal;
    context->saved_data["qk_norm"] = qk_norm;
    context->saved_data["scale"] = scale;
    return dispatch<Signature>(name, qkv, axis, causal, qk_norm, scale);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    auto& saved = context->saved_data;
    const auto qkv = context->get_saved_variables()[0];
    auto grad = dispatch<BackwardSignature>(backward_name, grads[0], qkv, saved["axis"].toStringView(),
                                            saved["causal"].toBool(), saved["qk_norm"].toBool(),
                                            saved["scale"].toOptional<double>());
    return {grad, {}, {}, {}, {}};
  }
};

at::Tensor autograd(const at::Tensor& qkv, std::string_view axis, bool causal, bool qk_norm,
                    std::optional<double> scale) {
  return StAttention::apply(qkv, std::string(axis), causal, qk_norm, scale);
}

at::Tensor autograd_backward(const at::Tensor& grad, const at::Tensor& qkv, std::string_view axis,
                             bool causal, bool qk_norm, std::optional<double> scale) {
  const auto result =
      dispatch_below_autograd<BackwardSignature>(backward_name, grad, qkv, axis, causal, qk_norm, scale);
  return once_differentiable(name, result, {grad, qkv});
}

at::Tensor autocast(const at::Tensor& qkv, std::string_view axis, bool causal, bool qk_norm,
                    std::optional<double> scale) {
  const NoAutocast no_autocast;
  return dispatch<Signature>(name, autocast_cast(qkv), axis, causal, qk_norm, scale);
}

}  // namespace

at::Tensor st_attention(const at::Tensor& qkv, std::string_view axis, bool causal, bool qk_norm,
                        std::optional<double> scale) {
  return dispatch<Signature>(name, qkv, axis, causal, qk_norm, scale);
}

TORCH_LIBRARY_FRAGMENT(genie, m) {
  m.def(
      "st_attention(Tensor qkv, str axis, bool causal=False, bool qk_norm=False, float? scale=None) -> "
      "Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "_st_attention_backward(Tensor grad, Tensor qkv, str axis, bool causal, bool qk_norm, float? scale) -> "
      "Tensor",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(genie, Meta, m) {
  m.impl("st_attention", meta);
  m.impl("_st_attention_backward", meta_backward);
}

TORCH_LIBRARY_IMPL(genie, Autograd, m) {
  m.impl("st_attention", autograd);
  m.impl("_st_attention_backward", autograd_backward);
}

TORCH_LIBRARY_IMPL(genie, Autocast, m) { m.impl("st_attention", autocast); }
TORCH_LIBRARY_IMPL(genie, AutocastCPU, m) { m.impl("st_attention", autocast); }

}  // namespace genie::ops
