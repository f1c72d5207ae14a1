#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace genie::ops {

/// Calls the op `name` of the genie library through torch's dispatcher, as the C++ function type `Function`.
template <class Function, class... Args>
decltype(auto) dispatch(const char* name, Args&&... args) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Function>();
  return op.call(std::forward<Args>(args)...);
}

/// The same for the kernel of a device, past autograd's own.
template <class Function, class... Args>
decltype(auto) dispatch_below_autograd(const char* name, Args&&... args) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return dispatch<Function>(name, std::forward<Args>(args)...);
}

/// For the Meta kernels of backward ops, which run when any argument is on meta: throws unless all are.
inline void check_same_device(const char* op, const at::Tensor& grad, const at::Tensor& input) {
  TORCH_CHECK_VALUE(grad.device() == input.device(), op, ": the gradient is on ", grad.device(),
                    ", the input on ", input.device());
}

/// Hands its first argument on and fails when it is differentiated.
class RefuseDerivative : public torch::autograd::Function<RefuseDerivative> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& result,
                            at::TensorList /*inputs*/, const std::string& op) {
    context->saved_data["op"] = op;
    return result;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list&) {
    TORCH_CHECK_NOT_IMPLEMENTED(false, context->saved_data["op"].toStringRef(),
                                ": the backward pass can't be differentiated again (double backward isn't "
                                "supported). Write this part with ordinary torch operations if you need it.");
  }
};

/// Whether anybody may ask for derivatives by one of these.
inline bool differentiated(at::TensorList inputs) {
  if (!at::GradMode::is_enabled()) return false;
  for (const auto& input : inputs) {
    if (input.defined() && input.requires_grad()) return true;
  }
  return false;
}

/// Makes a result of a backward op fail with a clear message should somebody differentiate it once more.
inline at::Tensor once_differentiable(const char* op, const at::Tensor& result, at::TensorList inputs) {
  return differentiated(inputs) ? RefuseDerivative::apply(result, inputs, std::string(op)) : result;
}

/// Turns autocast off while an autocast kernel calls its op, and in backward passes, which may be run inside
/// autocast's scope too.
class NoAutocast {
  c10::impl::ExcludeDispatchKeyGuard guard_{c10::autocast_dispatch_keyset};
};

/// The tensor in the precision autocast uses on its device; float64 is left alone.
inline at::Tensor autocast_cast(const at::Tensor& tensor) {
  const auto device = tensor.device().type();
  return at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), tensor, device);
}
inline std::optional<at::Tensor> autocast_cast(const std::optional<at::Tensor>& tensor) {
  return tensor ? std::optional(autocast_cast(*tensor)) : std::nullopt;
}

/// The tensor in float32, for what autocast shall not round; float64 is left alone.
inline at::Tensor autocast_widen(const at::Tensor& tensor) {
  return at::autocast::cached_cast(at::kFloat, tensor, tensor.device().type());
}

}  // namespace genie::ops
