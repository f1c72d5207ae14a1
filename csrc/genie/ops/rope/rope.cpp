#include "genie/ops/rope/rope.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "genie/ops/autograd_helpers.h"
#include "genie/ops/float_check.h"

namespace genie::ops {
namespace {

void check_input(const char* op, const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() >= 3, op, ": x must be (B, N, ..., head_dim), got ", x.sym_sizes());
  check_float(op, "x", x);
}

}  // namespace

void check_rope_3d(const at::Tensor& x, const at::Tensor& positions, const c10::SymInt& height,
                   const c10::SymInt& width) {
  const char* op = "genie::rope_3d";
  check_input(op, x);
  TORCH_CHECK_VALUE((positions.dim() == 1 && positions.sym_size(0) == x.sym_size(1)) ||
                        (positions.dim() == 2 && positions.sym_size(0) == x.sym_size(0) &&
                         positions.sym_size(1) == x.sym_size(1)),
                    op, ": positions must be (N) or (B, N) = (", x.sym_size(0), ", ", x.sym_size(1),
                    "), got ", positions.sym_sizes());
  TORCH_CHECK_TYPE(positions.scalar_type() == at::kLong, op, ": positions must be int64, got ",
                   positions.scalar_type());
  TORCH_CHECK_VALUE(positions.device() == x.device(), op, ": x is on ", x.device(), ", positions on ",
                    positions.device());
  TORCH_CHECK_VALUE(height <= kMaxGridSide && width <= kMaxGridSide, op,
                    ": the grid's sides must be at most ", kMaxGridSide, ", got ", height, " x ", width);
  TORCH_CHECK_VALUE(height >= 1 && width >= 1, op, ": the grid must be at least 1 x 1, got ", height, " x ",
                    width);
}

void check_rope_register(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const char* op = "genie::rope_register";
  check_input(op, x);
  const auto channels = x.sym_size(-1);
  TORCH_CHECK_VALUE(channels % 4 == 0, op, ": head_dim must be divisible by 4, got ", channels);
  TORCH_CHECK_VALUE(cos.dim() == 2 && cos.sym_size(0) == x.sym_size(1) && cos.sym_size(1) == channels &&
                        sin.sym_sizes() == cos.sym_sizes(),
                    op, ": cos and sin must be (N, head_dim) = (", x.sym_size(1), ", ", channels, "), got ",
                    cos.sym_sizes(), " and ", sin.sym_sizes());
  const auto dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK_TYPE(cos.scalar_type() == dtype && sin.scalar_type() == dtype, op, ": cos and sin must be ",
                   dtype, " for x of ", x.scalar_type(), ", got ", cos.scalar_type(), " and ",
                   sin.scalar_type());
  TORCH_CHECK_VALUE(cos.device() == x.device() && sin.device() == x.device(), op, ": x is on ", x.device(),
                    ", the tables on ", cos.device(), " and ", sin.device());
}

at::Tensor dense_tokens(const at::Tensor& x) {
  int64_t expected = 1;
  for (int64_t i = x.dim() - 1; i >= 2; --i) {
    if (x.size(i) != 1 && x.stride(i) != expected) return x.contiguous();
    expected *= x.size(i);
  }
  return x;
}

namespace {

constexpr const char* name_3d = "genie::rope_3d";
constexpr const char* name_register = "genie::rope_register";
// Kernels take SymInt by value: by that exact type the dispatcher knows that they understand symbolic sizes.
using Signature3d = at::Tensor(const at::Tensor&, const at::Tensor&, c10::SymInt, c10::SymInt, bool);
using SignatureRegister = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, bool);
using Context = torch::autograd::AutogradContext;
using Variables = torch::autograd::variable_list;

at::Tensor meta_3d(const at::Tensor& x, const at::Tensor& positions, c10::SymInt height, c10::SymInt width,
                   bool) {
  check_rope_3d(x, positions, height, width);
  return at::empty_symint(x.sym_sizes(), x.options());
}

at::Tensor meta_register(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool) {
  check_rope_register(x, cos, sin);
  return at::empty_symint(x.sym_sizes(), x.options());
}

/// The map is linear: its gradient is the transposed map, the same op again.
class Rope3d : public torch::autograd::Function<Rope3d> {
 public:
  static at::Tensor forward(Context* context, const at::Tensor& x, const at::Tensor& positions,
                            c10::SymInt height, c10::SymInt width, bool transpose) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({positions});
    context->saved_data["height"] = height;
    context->saved_data["width"] = width;
    context->saved_data["transpose"] = transpose;
    return dispatch<Signature3d>(name_3d, x, positions, height, width, transpose);
  }
  static Variables backward(Context* context, const Variables& grads) {
    auto& saved = context->saved_data;
    return {dispatch<Signature3d>(name_3d, grads[0], context->get_saved_variables()[0],
                                  saved["height"].toSymInt(), saved["width"].toSymInt(),
                                  !saved["transpose"].toBool()),
            {},
            {},
            {},
            {}};
  }
};

class RopeRegister : public torch::autograd::Function<RopeRegister> {
 public:
  static at::Tensor forward(Context* context, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin, bool transpose) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({cos, sin});
    context->saved_data["transpose"] = transpose;
    return dispatch<SignatureRegister>(name_register, x, cos, sin, transpose);
  }
  static Variables backward(Context* context, const Variables& grads) {
    const auto tables = context->get_saved_variables();
    return {dispatch<SignatureRegister>(name_register, grads[0], tables[0], tables[1],
                                        !context->saved_data["transpose"].toBool()),
            {},
            {},
            {}};
  }
};

at::Tensor autograd_3d(const at::Tensor& x, const at::Tensor& positions, c10::SymInt height,
                       c10::SymInt width, bool transpose) {
  return Rope3d::apply(x, positions, height, width, transpose);
}

at::Tensor autograd_register(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                             bool transpose) {
  TORCH_CHECK_NOT_IMPLEMENTED(!cos.requires_grad() && !sin.requires_grad(), name_register,
                              ": cos and sin are constants and have no gradient; detach them");
  return RopeRegister::apply(x, cos, sin, transpose);
}

}  // namespace

at::Tensor rope_3d(const at::Tensor& x, const at::Tensor& positions, int64_t height, int64_t width,
                   bool transpose) {
  return dispatch<Signature3d>(name_3d, x, positions, height, width, transpose);
}

at::Tensor rope_register(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool transpose) {
  return dispatch<SignatureRegister>(name_register, x, cos, sin, transpose);
}

TORCH_LIBRARY_FRAGMENT(genie, m) {
  m.def("rope_3d(Tensor x, Tensor positions, SymInt height, SymInt width, bool transpose=False) -> Tensor",
        {at::Tag::pt2_compliant_tag});
  m.def("rope_register(Tensor x, Tensor cos, Tensor sin, bool transpose=False) -> Tensor",
        {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(genie, Meta, m) {
  m.impl("rope_3d", meta_3d);
  m.impl("rope_register", meta_register);
}

TORCH_LIBRARY_IMPL(genie, Autograd, m) {
  m.impl("rope_3d", autograd_3d);
  m.impl("rope_register", autograd_register);
}

}  // namespace genie::ops
