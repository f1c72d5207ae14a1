#include "genie/nn/input_check.h"

#include <ATen/autocast_mode.h>

#include <cmath>

namespace genie::nn {
namespace {

/// Whether autocast brings both to one type; it leaves float64 alone.
bool autocast_converts(const at::Tensor& x, const at::Tensor& weight) {
  const auto narrow = [](const at::Tensor& t) {
    return t.is_floating_point() && t.scalar_type() != at::kDouble;
  };
  return narrow(x) && narrow(weight) && !x.is_meta() && at::autocast::is_autocast_enabled(x.device().type());
}

}  // namespace

void check_dtype_and_device(const char* module, const char* name, const at::Tensor& x,
                            const at::Tensor& weight) {
  TORCH_CHECK_TYPE(x.scalar_type() == weight.scalar_type() || autocast_converts(x, weight), module, ": ",
                   name, " is ", x.scalar_type(), ", the module ", weight.scalar_type(),
                   "; convert one of them (autocast converts all but float64)");
  TORCH_CHECK_VALUE(x.device() == weight.device(), module, ": ", name, " is on ", x.device(),
                    ", the module on ", weight.device());
}

void check_input(const char* module, const char* name, const at::Tensor& x, int64_t channels,
                 const at::Tensor& weight) {
  TORCH_CHECK_VALUE(x.dim() >= 1 && x.size(-1) == channels, module, ": expected ", name, " (...,", channels,
                    "), got ", x.sizes());
  check_dtype_and_device(module, name, x, weight);
}

void check_rates(const char* module, std::initializer_list<Rate> rates) {
  for (const Rate& rate : rates) {
    TORCH_CHECK_VALUE(rate.value >= 0 && rate.value < 1, module, ": ", rate.name, " must be in [0, 1), got ",
                      rate.value);
  }
}

int64_t check_heads(const char* module, int64_t dim, int64_t num_heads, int64_t head_dim,
                    std::optional<double> scale) {
  TORCH_CHECK_VALUE(dim >= 1 && num_heads >= 1, module,
                    ": dim and num_heads must be at least 1, got dim=", dim, ", num_heads=", num_heads);
  TORCH_CHECK_VALUE(head_dim >= 0, module, ": head_dim must be at least 1, or 0 for dim / num_heads, got ",
                    head_dim);
  TORCH_CHECK_VALUE(head_dim > 0 || dim % num_heads == 0, module, ": dim=", dim,
                    " is not divisible by num_heads=", num_heads, "; change one of them or give head_dim");
  TORCH_CHECK_VALUE(std::isfinite(scale.value_or(1)), module, ": the scale must be finite, got ", *scale);
  return head_dim > 0 ? head_dim : dim / num_heads;
}

int64_t mlp_width(const char* module, int64_t dim, double ratio) {
  constexpr double kWidest = 1 << 30;
  const double width = static_cast<double>(dim) * ratio;
  TORCH_CHECK_VALUE(width >= 1 && width <= kWidest, module, ": mlp_ratio=", ratio, " makes ", width,
                    " hidden features of dim=", dim, "; it must make at least 1");
  return static_cast<int64_t>(width);
}

}  // namespace genie::nn
