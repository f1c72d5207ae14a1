#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

#include "genie/ops/cpu/cpu_kernel.h"

namespace genie::ops {

/// Where a (row, head, channel) array lies in memory. Strides count elements; channels lie side by side.
template <class Data>
struct HeadRows {
  Data* data = nullptr;
  int64_t row_stride = 0;
  int64_t head_stride = 0;
};

/// Softmax attention inside many sequences of rows, one after another: the CPU core of st_attention and
/// area_attention. Nothing is padded and nothing is permuted in memory; rows are read and written where they
/// are.
struct SequenceAttention {
  at::ScalarType dtype;
  int64_t heads;
  int64_t head_dim;
  double scale;
  bool qk_norm;  // LayerNorm of each head's q and k, without weights, eps 1e-6

  /// Sequence s holds the rows rows[offsets[s]] .. rows[offsets[s + 1] - 1].
  int64_t count;
  const int64_t* offsets;
  const int64_t* rows;
  /// Causality: element i of a sequence sees its first limits[i] elements (at least one, never falling with
  /// i). Indexed like `rows`; null: every element sees all.
  const int64_t* limits;

  HeadRows<const void> q, k, v;
};

/// Writes softmax(scale q k^T) v of each row and head to `out`.
extern CpuKernel<void(const SequenceAttention&, HeadRows<void> out)> attend_sequences;

/// Writes the gradients by q, k and v, recomputing the attention weights.
extern CpuKernel<void(const SequenceAttention&, HeadRows<const void> grad_out, HeadRows<void> grad_q,
                      HeadRows<void> grad_k, HeadRows<void> grad_v)>
    attend_sequences_backward;

}  // namespace genie::ops
