#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "genie/ops/cuda/sequence_rows.h"

namespace genie::ops {

/// Each (rows, heads, head_dim), channels side by side, other strides at will.
struct HeadTensors {
  at::Tensor q, k, v;
};

/// What the attention kernels compute: softmax(scale q k^T) v inside `count` sequences of rows, with a
/// LayerNorm of each head's q and k before, if `qk_norm`. float32, float64, bfloat16 and float16.
struct AttentionCall {
  const char* op;  // for errors
  SequenceRows rows;
  int64_t count;
  double scale;
  bool qk_norm = false;
};

/// Each starts kernels on the current device and stream.
void attend_on_cuda(const AttentionCall& call, const HeadTensors& x, const at::Tensor& out);
void attend_backward_on_cuda(const AttentionCall& call, const HeadTensors& x, const at::Tensor& grad_out,
                             const HeadTensors& gradients);

/// The normalised queries and keys (rows, 2, heads, head_dim) of contiguous qkv (rows, 3, heads, head_dim).
at::Tensor normalize_heads_on_cuda(const char* op, const at::Tensor& qkv);

/// The gradient by that qkv from those by its (where `qk_norm`, normalised) queries and keys and its values.
at::Tensor pack_gradients_on_cuda(const char* op, const at::Tensor& qkv, bool qk_norm,
                                  const HeadTensors& gradients);

}  // namespace genie::ops
