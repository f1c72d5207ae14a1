#include "genie/ops/linear/linear.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>

#include "genie/ops/autograd_helpers.h"
#include "genie/ops/products.h"

namespace genie::ops {
namespace {

using OptionalTensor = std::optional<at::Tensor>;
using Variables = torch::autograd::variable_list;

/// Keeps the narrow factors for the backward pass, not the wide ones.
class WidenedLinear : public torch::autograd::Function<WidenedLinear> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const OptionalTensor& bias) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({x, weight});
    context->saved_data["bias"] = bias.has_value();
    const auto dtype = x.scalar_type();
    return at::linear(as_factor(x, dtype), as_factor(weight, dtype), as_factor(bias, dtype)).to(dtype);
  }

  static Variables backward(torch::autograd::AutogradContext* context, const Variables& grads) {
    const NoAutocast no_autocast;
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const auto dtype = x.scalar_type();
    const at::Tensor grad = as_factor(grads[0], dtype).reshape({-1, weight.size(0)});
    Variables by(3);
    if (context->needs_input_grad(0)) {
      by[0] = grad.mm(as_factor(weight, dtype)).view(x.sizes()).to(dtype);
    }
    if (context->needs_input_grad(1)) {
      by[1] = grad.t().mm(as_factor(x, dtype).reshape({-1, weight.size(1)})).to(dtype);
    }
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2)) by[2] = grad.sum(0).to(dtype);
    return by;
  }
};

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias) {
  const bool casts = x.is_cpu() && at::autocast::is_autocast_enabled(at::kCPU) &&
                     x.scalar_type() != at::kDouble && weight.scalar_type() != at::kDouble;
  const auto dtype = casts ? at::autocast::get_autocast_dtype(at::kCPU) : x.scalar_type();
  const bool one_type = casts || (weight.scalar_type() == dtype && (!bias || bias->scalar_type() == dtype));
  if (!one_type || !widened(dtype, x.device()) || !weight.is_cpu()) return at::linear(x, weight, bias);
  const NoAutocast no_autocast;
  if (!casts) return WidenedLinear::apply(x, weight, bias);
  return WidenedLinear::apply(autocast_cast(x), autocast_cast(weight), autocast_cast(bias));
}

}  // namespace genie::ops
