#include "genie/ops/area_attention/area_attention.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>

#include "genie/ops/autograd_helpers.h"
#include "genie/ops/float_check.h"

namespace genie::ops {

void check_area_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const at::Tensor& cu_seqlens, const std::optional<at::Tensor>& frame_ids) {
  const auto is_index = [](const at::Tensor& x) {
    return x.scalar_type() == at::kInt || x.scalar_type() == at::kLong;
  };
  TORCH_CHECK_VALUE(q.dim() == 3 && k.sym_sizes() == q.sym_sizes() && v.sym_sizes() == q.sym_sizes(),
                    "genie::area_attention: q, k and v must be (total, heads, head_dim) of one shape, got ",
                    q.sym_sizes(), ", ", k.sym_sizes(), " and ", v.sym_sizes());
  TORCH_CHECK_VALUE(q.sym_size(2) > 0, "genie::area_attention: head_dim must be positive");
  const auto dtype = q.scalar_type();
  check_float("genie::area_attention", "q", q);
  TORCH_CHECK_TYPE(k.scalar_type() == dtype && v.scalar_type() == dtype,
                   "genie::area_attention: q, k and v must have one dtype, got ", dtype, ", ",
                   k.scalar_type(), " and ", v.scalar_type());
  TORCH_CHECK_VALUE(cu_seqlens.dim() == 1 && cu_seqlens.sym_size(0) >= 1,
                    "genie::area_attention: cu_seqlens must be (segments + 1), got ", cu_seqlens.sym_sizes());
  TORCH_CHECK_TYPE(is_index(cu_seqlens), "genie::area_attention: cu_seqlens must be int32 or int64, got ",
                   cu_seqlens.scalar_type());
  TORCH_CHECK_VALUE(k.device() == q.device() && v.device() == q.device() &&
                        cu_seqlens.device() == q.device() &&
                        (!frame_ids || frame_ids->device() == q.device()),
                    "genie::area_attention: all tensors must be on one device");
  if (!frame_ids) return;
  TORCH_CHECK_VALUE(frame_ids->dim() == 1 && frame_ids->sym_size(0) == q.sym_size(0),
                    "genie::area_attention: frame_ids must be (total) = (", q.sym_size(0), "), got ",
                    frame_ids->sym_sizes());
  TORCH_CHECK_TYPE(is_index(*frame_ids), "genie::area_attention: frame_ids must be int32 or int64, got ",
                   frame_ids->scalar_type());
}

namespace {

constexpr const char* name = "genie::area_attention";
constexpr const char* backward_name = "genie::_area_attention_backward";
using OptionalTensor = std::optional<at::Tensor>;
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                             c10::SymInt, std::optional<double>, const OptionalTensor&);
using BackwardSignature = Gradients(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                    const at::Tensor&, const at::Tensor&, c10::SymInt, std::optional<double>,
                                    const OptionalTensor&);

at::Tensor meta(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& cu_seqlens,
                c10::SymInt, std::optional<double>, const OptionalTensor& frame_ids) {
  check_area_attention(q, k, v, cu_seqlens, frame_ids);
  return at::empty_symint(q.sym_sizes(), q.options());
}

Gradients meta_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const at::Tensor& cu_seqlens, c10::SymInt, std::optional<double>,
                        const OptionalTensor& frame_ids) {
  check_area_attention(q, k, v, cu_seqlens, frame_ids);
  check_same_device(backward_name, grad, q);
  const auto empty = [&] { return at::empty_symint(q.sym_sizes(), q.options()); };
  return {empty(), empty(), empty()};
}

class AreaAttention : public torch::autograd::Function<AreaAttention> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q,
                            const at::Tensor& k, const at::Tensor& v, const at::Tensor& cu_seqlens,
                            c10::SymInt max_seqlen, std::optional<double> scale,
                            const OptionalTensor& frame_ids) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({q, k, v, cu_seqlens, frame_ids.value_or(at::Tensor())});
    context->saved_data["max_seqlen"] = max_seqlen;
    context->saved_data["scale"] = scale;
    return dispatch<Signature>(name, q, k, v, cu_seqlens, max_seqlen, scale, frame_ids);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto frame_ids = saved[4].defined() ? OptionalTensor(saved[4]) : std::nullopt;
    const auto [q, k, v] =
        dispatch<BackwardSignature>(backward_name, grads[0], saved[0], saved[1], saved[2], saved[3],
                                    context->saved_data["max_seqlen"].toSymInt(),
                                    context->saved_data["scale"].toOptional<double>(), frame_ids);
    return {q, k, v, {}, {}, {}, {}};
  }
};

at::Tensor autograd(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const at::Tensor& cu_seqlens, c10::SymInt max_seqlen, std::optional<double> scale,
                    const OptionalTensor& frame_ids) {
  return AreaAttention::apply(q, k, v, cu_seqlens, max_seqlen, scale, frame_ids);
}

Gradients autograd_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor& cu_seqlens, c10::SymInt max_seqlen,
                            std::optional<double> scale, const OptionalTensor& frame_ids) {
  const auto result = dispatch_below_autograd<BackwardSignature>(backward_name, grad, q, k, v, cu_seqlens,
                                                                 max_seqlen, scale, frame_ids);
  const auto once = [&](const at::Tensor& x) { return once_differentiable(name, x, {grad, q, k, v}); };
  return {once(std::get<0>(result)), once(std::get<1>(result)), once(std::get<2>(result))};
}

at::Tensor autocast(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const at::Tensor& cu_seqlens, c10::SymInt max_seqlen, std::optional<double> scale,
                    const OptionalTensor& frame_ids) {
  const NoAutocast no_autocast;
  return dispatch<Signature>(name, autocast_cast(q), autocast_cast(k), autocast_cast(v), cu_seqlens,
                             max_seqlen, scale, frame_ids);
}

}  // namespace

at::Tensor area_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const at::Tensor& cu_seqlens, int64_t max_seqlen, std::optional<double> scale,
                          const OptionalTensor& frame_ids) {
  return dispatch<Signature>(name, q, k, v, cu_seqlens, max_seqlen, scale, frame_ids);
}

TORCH_LIBRARY_FRAGMENT(genie, m) {
  m.def(
      "area_attention(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, SymInt max_seqlen, float? scale=None, "
      "Tensor? frame_ids=None) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "_area_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, SymInt "
      "max_seqlen, "
      "float? scale, Tensor? frame_ids) -> (Tensor, Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(genie, Meta, m) {
  m.impl("area_attention", meta);
  m.impl("_area_attention_backward", meta_backward);
}

TORCH_LIBRARY_IMPL(genie, Autograd, m) {
  m.impl("area_attention", autograd);
  m.impl("_area_attention_backward", autograd_backward);
}

TORCH_LIBRARY_IMPL(genie, Autocast, m) { m.impl("area_attention", autocast); }
TORCH_LIBRARY_IMPL(genie, AutocastCPU, m) { m.impl("area_attention", autocast); }

}  // namespace genie::ops
