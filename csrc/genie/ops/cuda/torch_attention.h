#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>

namespace genie::ops {

/// Attention by the kernels torch brings for CUDA: FlashAttention (Dao 2023, arXiv 2307.08691) in bfloat16
/// and float16, the memory-efficient kernel of xFormers in float32. Nothing waits for the device.
///
/// `q`, `k`, `v`: (total, heads, head_dim), channels side by side, other strides at will. `offsets`: int32
/// (segments + 1) where the tokens' segments begin; `longest`: at least the longest one's length.
struct Segments {
  at::Tensor offsets;
  int64_t longest;
  bool causal = false;  // by place in the segment
};

/// Whether torch's kernels take these: their dtypes, a head_dim that is a multiple of 8 up to 256, a positive
/// scale.
bool torch_attention_takes(const at::Tensor& q, double scale);

at::Tensor torch_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const Segments& segments, double scale);

/// The gradients by q, k and v. The result is computed once more; the order of sums is fixed, so that the
/// gradients are the same bits each time.
std::tuple<at::Tensor, at::Tensor, at::Tensor> torch_attention_backward(
    const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const Segments& segments, double scale);

}  // namespace genie::ops
