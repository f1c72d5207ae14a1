#include "genie/ops/residual_branch/checks.h"

#include <initializer_list>
#include <vector>

namespace genie::ops {
namespace {

struct Named {
  const char* name;
  const at::Tensor& tensor;
  std::vector<c10::SymInt> shape;
};

void check_all(const char* op, const at::Tensor& x, std::initializer_list<Named> tensors) {
  const auto dtype = x.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kDouble, op, ": x must be float32 or float64, got ",
                   dtype);
  for (const Named& item : tensors) {
    TORCH_CHECK_VALUE(item.tensor.sym_sizes() == c10::SymIntArrayRef(item.shape), op, ": ", item.name,
                      " must be ", c10::SymIntArrayRef(item.shape), ", got ", item.tensor.sym_sizes());
    TORCH_CHECK_TYPE(item.tensor.scalar_type() == dtype, op, ": x is ", dtype, ", ", item.name, " is ",
                     item.tensor.scalar_type());
    TORCH_CHECK_VALUE(item.tensor.device() == x.device(), op, ": x is on ", x.device(), ", ", item.name,
                      " on ", item.tensor.device());
  }
}

/// The size of the last axis.
c10::SymInt width(const char* op, const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() >= 2 && x.sym_size(-1) > 0, op, ": x must be (..., dim), got ", x.sym_sizes());
  return x.sym_size(-1);
}

c10::SymInt rows_of(const char* op, const char* name, const at::Tensor& weight) {
  TORCH_CHECK_VALUE(weight.dim() == 2 && weight.sym_size(0) > 0, op, ": ", name, " must be (out, in), got ",
                    weight.sym_sizes());
  return weight.sym_size(0);
}

}  // namespace

void check_norm_linear(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                       const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  const auto dim = width("genie::norm_linear", x), out = rows_of("genie::norm_linear", "weight", weight);
  check_all(
      "genie::norm_linear", x,
      {{"norm_weight", norm_weight, {dim}}, {"norm_bias", norm_bias, {dim}}, {"weight", weight, {out, dim}}});
  if (bias) check_all("genie::norm_linear", x, {{"bias", *bias, {out}}});
}

void check_linear_residual(const at::Tensor& x, const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias, const at::Tensor& residual) {
  const auto dim = width("genie::linear_residual", x),
             out = rows_of("genie::linear_residual", "weight", weight);
  auto expected = x.sym_sizes().vec();
  expected.back() = out;
  check_all("genie::linear_residual", x, {{"weight", weight, {out, dim}}, {"residual", residual, expected}});
  if (bias) check_all("genie::linear_residual", x, {{"bias", *bias, {out}}});
}

void check_norm_mlp_residual(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                             const at::Tensor& weight1, const at::Tensor& bias1, const at::Tensor& weight2,
                             const at::Tensor& bias2) {
  const auto dim = width("genie::norm_mlp_residual", x),
             hidden = rows_of("genie::norm_mlp_residual", "weight1", weight1);
  check_all("genie::norm_mlp_residual", x,
            {{"norm_weight", norm_weight, {dim}},
             {"norm_bias", norm_bias, {dim}},
             {"weight1", weight1, {hidden, dim}},
             {"bias1", bias1, {hidden}},
             {"weight2", weight2, {dim, hidden}},
             {"bias2", bias2, {dim}}});
}

}  // namespace genie::ops
