#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace genie::ops {

/// Whether this processor multiplies bfloat16 numbers by instructions of its own (AVX512_BF16, AMX). Where
/// there are none torch multiplies them up to a hundred times slower than float32.
bool cpu_multiplies_bfloat16();

/// For tests: takes the processor for one that does, or does not; without a value it is asked again.
void assume_cpu_multiplies_bfloat16(std::optional<bool> assumed);

/// Whether matrices of `dtype` are multiplied as float32 on the device: bfloat16 on a processor without
/// instructions for it. float32 holds such numbers exactly, and products are added up in it either way.
bool widened(at::ScalarType dtype, at::Device device);

/// The type in which products of factors of `dtype` are added up.
inline at::ScalarType sum_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

/// `tensor` rounded to `dtype`, in the type its device multiplies such numbers in.
at::Tensor as_factor(const at::Tensor& tensor, at::ScalarType dtype);
std::optional<at::Tensor> as_factor(const std::optional<at::Tensor>& tensor, at::ScalarType dtype);

/// Writes a b (+ bias) of three factors to `out`, whatever type that has.
void multiply_into(at::Tensor out, const at::Tensor& a, const at::Tensor& b,
                   const std::optional<at::Tensor>& bias = std::nullopt);

/// Adds a b of two factors to `sum`, whatever type that has.
void add_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b);

}  // namespace genie::ops
