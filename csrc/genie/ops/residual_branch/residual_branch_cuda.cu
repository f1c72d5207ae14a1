#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/sum.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "genie/ops/cuda/launch.cuh"
#include "genie/ops/products.h"
#include "genie/ops/residual_branch/checks.h"
#include "genie/ops/residual_branch/gelu.cuh"
#include "genie/ops/residual_branch/parts.h"
#include "genie/ops/unverified_kernels.h"

namespace genie::ops {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

struct NormLinearGradients {
  at::Tensor to_x, to_norm_weight, to_norm_bias, to_weight, to_bias;
};

/// The backward pass of linear(layer_norm(x)).
NormLinearGradients norm_linear_gradients(const at::Tensor& grad, const at::Tensor& x,
                                          const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                                          double eps, const at::Tensor& weight) {
  const Normalized normal = normalize(x, norm_weight, norm_bias, eps);
  const auto [to_x, to_norm_weight, to_norm_bias] =
      at::native_layer_norm_backward(grad.mm(weight).to(x.scalar_type()), x, {x.size(1)}, normal.mean,
                                     normal.rstd, norm_weight, norm_bias, {true, true, true});
  return {to_x, to_norm_weight, to_norm_bias, grad.t().mm(as_factor(normal.value, weight.scalar_type())),
          grad.sum(0)};
}

/// Blocks that keep a large GPU busy; each goes over several stretches of a longer array.
dim3 elementwise_grid(int64_t count) {
  constexpr int64_t most = 8192;
  return {static_cast<unsigned>(std::min(most, blocks_for(count, block_threads)))};
}

/// Adds the bias to `hidden`; returns the activation of that.
at::Tensor activate(const at::Tensor& hidden, const at::Tensor& bias) {
  const at::Tensor out = at::empty_like(hidden);
  if (hidden.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, hidden.scalar_type(), "norm_mlp_residual", [&] {
    launch("genie::norm_mlp_residual", add_bias_and_gelu<scalar_t>, elementwise_grid(hidden.numel()), 0,
           hidden.mutable_data_ptr<scalar_t>(), bias.const_data_ptr<scalar_t>(),
           out.mutable_data_ptr<scalar_t>(), hidden.numel(), hidden.size(1));
  });
  return out;
}

/// The activation again, and in place of the gradient by it that by its input.
at::Tensor activate_again(const at::Tensor& hidden, const at::Tensor& grad) {
  const at::Tensor out = at::empty_like(hidden);
  if (hidden.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, hidden.scalar_type(), "norm_mlp_residual", [&] {
    launch("genie::norm_mlp_residual", gelu_once_more<scalar_t>, elementwise_grid(hidden.numel()), 0,
           hidden.const_data_ptr<scalar_t>(), out.mutable_data_ptr<scalar_t>(),
           grad.mutable_data_ptr<scalar_t>(), hidden.numel());
  });
  return out;
}

at::Tensor norm_linear_cuda(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                            double eps, const at::Tensor& weight, const OptionalTensor& bias) {
  check_cuda_kernels_enabled("genie::norm_linear");
  check_norm_linear(x, norm_weight, norm_bias, weight, bias);
  const c10::cuda::CUDAGuard on_device(x.device());
  const at::Tensor normal =
      as_factor(normalize(as_rows(x), norm_weight, norm_bias, eps).value, weight.scalar_type());
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return (bias ? at::addmm(*bias, normal, weight.t()) : normal.mm(weight.t())).view(shape);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> norm_linear_backward_cuda(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
    double eps, const at::Tensor& weight) {
  check_cuda_kernels_enabled("genie::_norm_linear_backward");
  const c10::cuda::CUDAGuard on_device(x.device());
  const auto result = norm_linear_gradients(as_rows(grad), as_rows(x), norm_weight, norm_bias, eps, weight);
  return {result.to_x.view(x.sizes()), result.to_norm_weight, result.to_norm_bias, result.to_weight,
          result.to_bias};
}

at::Tensor linear_residual_cuda(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                                const at::Tensor& residual) {
  check_cuda_kernels_enabled("genie::linear_residual");
  check_linear_residual(x, weight, bias, residual);
  const c10::cuda::CUDAGuard on_device(x.device());
  const at::Tensor start = residual.contiguous();
  const at::Tensor out = bias ? start + *bias : start.clone();
  add_product(out.view({-1, weight.size(0)}), as_rows(x), weight.t());
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> linear_residual_backward_cuda(const at::Tensor& grad_,
                                                                             const at::Tensor& x_,
                                                                             const at::Tensor& weight) {
  check_cuda_kernels_enabled("genie::_linear_residual_backward");
  const c10::cuda::CUDAGuard on_device(x_.device());
  const at::Tensor x = as_rows(x_), grad = as_factor(as_rows(grad_), weight.scalar_type());
  return {grad.mm(weight).view(x_.sizes()), grad.t().mm(x), grad.sum(0)};
}

std::tuple<at::Tensor, at::Tensor> norm_mlp_residual_cuda(const at::Tensor& x_, const at::Tensor& norm_weight,
                                                          const at::Tensor& norm_bias, double eps,
                                                          const at::Tensor& weight1, const at::Tensor& bias1,
                                                          const at::Tensor& weight2, const at::Tensor& bias2,
                                                          bool keep_hidden) {
  check_cuda_kernels_enabled("genie::norm_mlp_residual");
  check_norm_mlp_residual(x_, norm_weight, norm_bias, weight1, bias1, weight2, bias2);
  const c10::cuda::CUDAGuard on_device(x_.device());
  const at::Tensor x = as_rows(x_);
  const at::Tensor normal = as_factor(normalize(x, norm_weight, norm_bias, eps).value, weight1.scalar_type());
  const at::Tensor hidden = normal.mm(weight1.t());
  const at::Tensor active = activate(hidden, bias1.contiguous()), out = x + bias2;
  add_product(out, active, weight2.t());
  return {out.view(x_.sizes()), keep_hidden ? hidden : at::empty({0, weight1.size(0)}, weight1.options())};
}

at::Tensor norm_mlp_residual_alone_cuda(const at::Tensor& x, const at::Tensor& norm_weight,
                                        const at::Tensor& norm_bias, double eps, const at::Tensor& weight1,
                                        const at::Tensor& bias1, const at::Tensor& weight2,
                                        const at::Tensor& bias2) {
  return std::get<0>(
      norm_mlp_residual_cuda(x, norm_weight, norm_bias, eps, weight1, bias1, weight2, bias2, false));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>
norm_mlp_residual_backward_cuda(const at::Tensor& grad_, const at::Tensor& x_, const at::Tensor& norm_weight,
                                const at::Tensor& norm_bias, double eps, const at::Tensor& weight1,
                                const at::Tensor& hidden, const at::Tensor& weight2) {
  check_cuda_kernels_enabled("genie::_norm_mlp_residual_backward");
  const c10::cuda::CUDAGuard on_device(x_.device());
  const at::Tensor x = as_rows(x_), grad = as_rows(grad_),
                   narrow_grad = as_factor(grad, weight2.scalar_type());
  const at::Tensor to_hidden = narrow_grad.mm(weight2);
  const at::Tensor active = activate_again(hidden, to_hidden);
  const auto first = norm_linear_gradients(to_hidden, x, norm_weight, norm_bias, eps, weight1);
  return {(first.to_x + grad).view(x_.sizes()),
          first.to_norm_weight,
          first.to_norm_bias,
          first.to_weight,
          first.to_bias,
          narrow_grad.t().mm(active),
          narrow_grad.sum(0)};
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, CUDA, m) {
  m.impl("norm_linear", norm_linear_cuda);
  m.impl("_norm_linear_backward", norm_linear_backward_cuda);
  m.impl("linear_residual", linear_residual_cuda);
  m.impl("_linear_residual_backward", linear_residual_backward_cuda);
  m.impl("norm_mlp_residual", norm_mlp_residual_alone_cuda);
  m.impl("_norm_mlp_residual", norm_mlp_residual_cuda);
  m.impl("_norm_mlp_residual_backward", norm_mlp_residual_backward_cuda);
}

}  // namespace genie::ops
