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

/// All of the shapes given, the dtype of the tensor called `like`, and the device of x.
void check_all(const char* op, const at::Tensor& x, const char* like, at::ScalarType dtype,
               std::initializer_list<Named> tensors) {
  for (const Named& item : tensors) {
    TORCH_CHECK_VALUE(item.tensor.sym_sizes() == c10::SymIntArrayRef(item.shape), op, ": ", item.name,
                      " must be ", c10::SymIntArrayRef(item.shape), ", got ", item.tensor.sym_sizes());
    TORCH_CHECK_TYPE(item.tensor.scalar_type() == dtype, op, ": ", item.name, " must be ", dtype, ", as ",
                     like, " is, got ", item.tensor.scalar_type());
    TORCH_CHECK_VALUE(item.tensor.device() == x.device(), op, ": x is on ", x.device(), ", ", item.name,
                      " on ", item.tensor.device());
  }
}

/// What isn't multiplied is float32 or float64, what is, of the same type or narrower.
void check_types(const char* op, const char* wide_name, at::ScalarType wide, const char* name,
                 at::ScalarType multiplied) {
  TORCH_CHECK_TYPE(wide == at::kFloat || wide == at::kDouble, op, ": ", wide_name,
                   " must be float32 or float64, got ", wide);
  TORCH_CHECK_TYPE(
      multiplied == wide || (wide == at::kFloat && (multiplied == at::kBFloat16 || multiplied == at::kHalf)),
      op, ": ", name, " must be ", wide, wide == at::kFloat ? ", BFloat16 or Half" : "", " as ", wide_name,
      " is ", wide, ", got ", multiplied);
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
  constexpr const char* op = "genie::norm_linear";
  const auto dim = width(op, x), out = rows_of(op, "weight", weight);
  const auto wide = x.scalar_type(), dtype = weight.scalar_type();
  check_types(op, "x", wide, "weight", dtype);
  check_all(op, x, "x", wide, {{"norm_weight", norm_weight, {dim}}, {"norm_bias", norm_bias, {dim}}});
  check_all(op, x, "weight", dtype, {{"weight", weight, {out, dim}}});
  if (bias) check_all(op, x, "weight", dtype, {{"bias", *bias, {out}}});
}

void check_linear_residual(const at::Tensor& x, const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias, const at::Tensor& residual) {
  constexpr const char* op = "genie::linear_residual";
  const auto dim = width(op, x), out = rows_of(op, "weight", weight);
  const auto wide = residual.scalar_type(), dtype = x.scalar_type();
  check_types(op, "residual", wide, "x", dtype);
  auto expected = x.sym_sizes().vec();
  expected.back() = out;
  check_all(op, x, "residual", wide, {{"residual", residual, expected}});
  check_all(op, x, "x", dtype, {{"weight", weight, {out, dim}}});
  if (bias) check_all(op, x, "x", dtype, {{"bias", *bias, {out}}});
}

void check_norm_mlp_residual(const at::Tensor& x, const at::Tensor& norm_weight, const at::Tensor& norm_bias,
                             const at::Tensor& weight1, const at::Tensor& bias1, const at::Tensor& weight2,
                             const at::Tensor& bias2) {
  constexpr const char* op = "genie::norm_mlp_residual";
  const auto dim = width(op, x), hidden = rows_of(op, "weight1", weight1);
  const auto wide = x.scalar_type(), dtype = weight1.scalar_type();
  check_types(op, "x", wide, "weight1", dtype);
  check_all(op, x, "x", wide, {{"norm_weight", norm_weight, {dim}}, {"norm_bias", norm_bias, {dim}}});
  check_all(op, x, "weight1", dtype,
            {{"weight1", weight1, {hidden, dim}},
             {"bias1", bias1, {hidden}},
             {"weight2", weight2, {dim, hidden}},
             {"bias2", bias2, {dim}}});
}

}  // namespace genie::ops
