#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>

namespace genie::nn {

/// Throws unless a layer that holds `weight` can take x (...,channels): ValueError for other channels or
/// another device, TypeError for another dtype (autocast converts all floating-point ones but float64).
/// `name` is what the caller calls x.
void check_input(const char* module, const char* name, const at::Tensor& x, int64_t channels,
                 const at::Tensor& weight);

/// The part of check_input() about dtype and device.
void check_dtype_and_device(const char* module, const char* name, const at::Tensor& x,
                            const at::Tensor& weight);

/// Throws ValueError unless each rate is in [0, 1).
struct Rate {
  const char* name;
  double value;
};
void check_rates(const char* module, std::initializer_list<Rate> rates);

/// Throws ValueError unless the width splits into heads: counts of at least 1, head_dim (0: dim / num_heads)
/// not negative, a scale that is finite. Returns the width of a head.
int64_t check_heads(const char* module, int64_t dim, int64_t num_heads, int64_t head_dim,
                    std::optional<double> scale);

/// The hidden width of an MLP, dim * ratio. Throws ValueError unless that is at least 1 and no nonsense.
int64_t mlp_width(const char* module, int64_t dim, double ratio);

}  // namespace genie::nn
