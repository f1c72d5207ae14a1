#pragma once

// The backward pass of many short sequences, such as the frames at one place: a block holds a whole sequence
// and head in shared memory, reads it once and writes all three gradients.

#include "genie/ops/cuda/sequence_attention.cuh"

namespace genie::ops {

constexpr int64_t most_short = warp_size;  // elements of a sequence: a key a lane

/// Bytes of shared memory for sequences of `length`: q, k, v, the gradient of the result, a row a warp, two
/// matrices of scores, and 1/std of q and k.
inline int64_t short_attention_shared(int64_t channels, int64_t length, int64_t element) {
  return element *
         ((4 * length + block_warps) * shared_stride(channels) + 2 * length * (warp_size + 1) + 2 * length);
}

/// Row r of the gradient by q, k or v: the sum over j of scores[j * step] rows[j], through `grad`, a row of
/// the warp's.
template <class T, class Acc>
__device__ void store_short_gradient(const Acc* scores, int64_t step, const Acc* rows, int64_t length,
                                     int64_t channels, const Acc* normal, Acc inverse, Acc* grad, T* to) {
  const int64_t stride = shared_stride(channels);
  for (int64_t c = lane_index(); c < channels; c += warp_size) {
    Acc total(0);
    for (int64_t j = 0; j < length; ++j) total += scores[j * step] * rows[j * stride + c];
    grad[c] = total;
  }
  store_gradient(normal != nullptr, normal, inverse, channels, grad, to);
}

/// All gradients of sequences of at most most_short elements, without offsets. Grid: (sequences * heads).
template <class T>
__global__ void attend_short_backward(AttentionTask<T> task, HeadArray<const T> grad_out, HeadArray<T> grad_q,
                                      HeadArray<T> grad_k, HeadArray<T> grad_v) {
  using Acc = at::opmath_type<T>;
  GENIE_SHARED(Acc, shared);
  constexpr int64_t score_stride = warp_size + 1;
  const int64_t channels = task.head_dim, stride = shared_stride(channels), length = task.rows.length;
  const auto scale = static_cast<Acc>(task.scale);
  Acc* q = shared;
  Acc* k = q + length * stride;
  Acc* v = k + length * stride;
  Acc* upstream = v + length * stride;
  Acc* grad = upstream + length * stride + warp_index() * stride;
  Acc* weights = upstream + (length + block_warps) * stride;
  Acc* grad_scores = weights + length * score_stride;
  Acc* q_inverse_std = grad_scores + length * score_stride;
  Acc* k_inverse_std = q_inverse_std + length;
  const int64_t head = blockIdx.x % task.heads;
  const Sequence sequence = sequence_of(task.rows, blockIdx.x / task.heads);
  Acc* const none = nullptr;
  load_rows(task.q, sequence, head, 0, length, length, channels, task.qk_norm, q, q_inverse_std);
  load_rows(task.k, sequence, head, 0, length, length, channels, task.qk_norm, k, k_inverse_std);
  load_rows(task.v, sequence, head, 0, length, length, channels, false, v, none);
  load_rows(grad_out, sequence, head, 0, length, length, channels, false, upstream, none);
  __syncthreads();
  const int64_t key = lane_index();
  for (int64_t i = warp_index(); i < length; i += block_warps) {
    const bool seen = key < length && task.sees(sequence, i, key);
    Acc score = lowest<Acc>(), to_weight(0);
    if (seen) {
      score = Acc(0);
      for (int64_t c = 0; c < channels; ++c) {
        score += q[i * stride + c] * k[key * stride + c];
        to_weight += upstream[i * stride + c] * v[key * stride + c];
      }
      score *= scale;
    }
    const Acc top = warp_max(score);
    const Acc exponential = seen ? std::exp(score - top) : Acc(0);
    const Acc weight = exponential / warp_sum(exponential);
    const Acc mean = warp_sum(weight * to_weight);
    weights[i * score_stride + key] = weight;
    grad_scores[i * score_stride + key] = weight * (to_weight - mean) * scale;
  }
  __syncthreads();
  for (int64_t i = warp_index(); i < length; i += block_warps) {
    const int64_t row = sequence.row(i);
    const Acc* normal_q = task.qk_norm ? q + i * stride : nullptr;
    const Acc* normal_k = task.qk_norm ? k + i * stride : nullptr;
    store_short_gradient(grad_scores + i * score_stride, 1, k, length, channels, normal_q, q_inverse_std[i],
                         grad, grad_q.at(row, head));
    store_short_gradient(grad_scores + i, score_stride, q, length, channels, normal_k, k_inverse_std[i], grad,
                         grad_k.at(row, head));
    store_short_gradient(weights + i, score_stride, upstream, length, channels,
                         static_cast<const Acc*>(nullptr), Acc(1), grad, grad_v.at(row, head));
  }
}

}  // namespace genie::ops
