#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace genie::ops {

/// The cross-entropy of linear(x) and `targets`, summed over rows, and the number of rows whose target no
/// other class beats: x (M,C), weight (K,C), bias (K), targets int64 (M) in [0,K). The loss is float32
/// (float64 for float64), the count int64. `label_smoothing` s: the target distribution is (1 - s) one-hot +
/// s / K.
///
/// The logits of a piece of the rows exist at a time, and its gradients are made there and then, as in Liger
/// Kernel (arXiv 2410.10989): (M,K) tensors are never kept. Double backward isn't supported. Throws
/// ValueError, TypeError, and IndexError for a target outside the classes.
std::tuple<at::Tensor, at::Tensor> linear_cross_entropy(const at::Tensor& x, const at::Tensor& weight,
                                                        const std::optional<at::Tensor>& bias,
                                                        const at::Tensor& targets,
                                                        double label_smoothing = 0);

void check_linear_cross_entropy(const at::Tensor& x, const at::Tensor& weight,
                                const std::optional<at::Tensor>& bias, const at::Tensor& targets,
                                double label_smoothing);

}  // namespace genie::ops
