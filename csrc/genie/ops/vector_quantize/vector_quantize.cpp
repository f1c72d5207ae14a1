#include "genie/ops/vector_quantize/vector_quantize.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/index_put.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "genie/ops/autograd_helpers.h"
#include "genie/ops/float_check.h"

namespace genie::ops {

void check_vector_quantize(const at::Tensor& x, const at::Tensor& codebook) {
  TORCH_CHECK_VALUE(x.dim() == 2 && codebook.dim() == 2 && x.sym_size(1) == codebook.sym_size(1),
                    "genie::vector_quantize: x must be (M, D) and codebook (K, D), got ", x.sym_sizes(),
                    " and ", codebook.sym_sizes());
  TORCH_CHECK_VALUE(
      codebook.sym_size(0) >= 1 && codebook.sym_size(1) >= 1,
      "genie::vector_quantize: the codebook must hold at least one code of at least one channel, got ",
      codebook.sym_sizes());
  const auto dtype = x.scalar_type();
  check_float("genie::vector_quantize", "x", x);
  TORCH_CHECK_TYPE(codebook.scalar_type() == dtype, "genie::vector_quantize: x is ", dtype, ", the codebook ",
                   codebook.scalar_type());
  TORCH_CHECK_VALUE(codebook.device() == x.device(), "genie::vector_quantize: x is on ", x.device(),
                    ", the codebook on ", codebook.device());
}

namespace {

constexpr const char* name = "genie::vector_quantize";
using Result = std::tuple<at::Tensor, at::Tensor>;
using Signature = Result(const at::Tensor&, const at::Tensor&);

Result meta(const at::Tensor& x, const at::Tensor& codebook) {
  check_vector_quantize(x, codebook);
  return {at::empty_symint(x.sym_sizes(), x.options()),
          at::empty_symint({x.sym_size(0)}, x.options().dtype(at::kLong))};
}

class VectorQuantize : public torch::autograd::Function<VectorQuantize> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& x, const at::Tensor& codebook) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [quantized, indices] = dispatch<Signature>(name, x, codebook);
    context->save_for_backward({indices});
    context->saved_data["codes"] = codebook.sym_size(0);
    context->saved_data["channels"] = codebook.sym_size(1);
    context->mark_non_differentiable({indices});
    context->set_materialize_grads(false);
    return {quantized, indices};
  }

  /// Made of differentiable ops, so that it can be differentiated again.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto& grad = grads[0];
    if (!grad.defined() || !context->needs_input_grad(1)) return {{}, {}};
    const bool narrow = grad.scalar_type() == at::kBFloat16 || grad.scalar_type() == at::kHalf;
    const auto wide = narrow ? grad.to(at::kFloat) : grad;
    const auto zeros = at::zeros_symint(
        {context->saved_data["codes"].toSymInt(), context->saved_data["channels"].toSymInt()},
        wide.options());
    const auto indices = context->get_saved_variables()[0];
    // On CUDA index_add adds in any order, while index_put sorts first.
    const auto sums = grad.is_cuda() ? zeros.index_put({indices}, wide, /*accumulate=*/true)
                                     : zeros.index_add(0, indices, wide);
    return {{}, sums.to(grad.scalar_type())};
  }
};

Result autograd(const at::Tensor& x, const at::Tensor& codebook) {
  const auto results = VectorQuantize::apply(x, codebook);
  return {results[0], results[1]};
}

/// Distances are compared in float32: in lower precision neighbouring codes would be mistaken for each other.
Result autocast(const at::Tensor& x, const at::Tensor& codebook) {
  const NoAutocast no_autocast;
  return dispatch<Signature>(name, autocast_widen(x), autocast_widen(codebook));
}

}  // namespace

Result vector_quantize(const at::Tensor& x, const at::Tensor& codebook) {
  return dispatch<Signature>(name, x, codebook);
}

TORCH_LIBRARY_FRAGMENT(genie, m) {
  m.def("vector_quantize(Tensor x, Tensor codebook) -> (Tensor quantized, Tensor indices)",
        {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(genie, Meta, m) { m.impl("vector_quantize", meta); }
TORCH_LIBRARY_IMPL(genie, Autograd, m) { m.impl("vector_quantize", autograd); }
TORCH_LIBRARY_IMPL(genie, Autocast, m) { m.impl("vector_quantize", autocast); }
TORCH_LIBRARY_IMPL(genie, AutocastCPU, m) { m.impl("vector_quantize", autocast); }

}  // namespace genie::ops
