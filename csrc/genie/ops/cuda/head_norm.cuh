#pragma once

#include "genie/ops/cuda/device.cuh"

namespace genie::ops {

constexpr double qk_norm_epsilon = 1e-6;

/// Where a (row, head, channel) array lies. Strides count elements; channels lie side by side.
template <class T>
struct HeadArray {
  T* data = nullptr;
  int64_t row_stride = 0, head_stride = 0;

  __device__ T* at(int64_t row, int64_t head) const { return data + row * row_stride + head * head_stride; }
};

/// LayerNorm without weights of a row that this lane holds channels lane, lane + 32, ... of. Returns 1/std.
template <class Acc>
__device__ Acc normalize_row(Acc* row, int64_t channels) {
  Acc total(0), squares(0);
  for (int64_t c = lane_index(); c < channels; c += warp_size) total += row[c];
  const Acc mean = warp_sum(total) / static_cast<Acc>(channels);
  for (int64_t c = lane_index(); c < channels; c += warp_size) {
    row[c] -= mean;
    squares += row[c] * row[c];
  }
  const Acc variance = warp_sum(squares) / static_cast<Acc>(channels);
  const Acc inverse = Acc(1) / std::sqrt(variance + static_cast<Acc>(qk_norm_epsilon));
  for (int64_t c = lane_index(); c < channels; c += warp_size) row[c] *= inverse;
  return inverse;
}

/// Turns a row's gradient by its normalised values into that by the row itself, in place.
template <class Acc>
__device__ void normalize_row_backward(const Acc* normal, Acc inverse, int64_t channels, Acc* grad) {
  Acc total(0), along(0);
  for (int64_t c = lane_index(); c < channels; c += warp_size) {
    total += grad[c];
    along += grad[c] * normal[c];
  }
  const Acc mean = warp_sum(total) / static_cast<Acc>(channels);
  const Acc projection = warp_sum(along) / static_cast<Acc>(channels);
  for (int64_t c = lane_index(); c < channels; c += warp_size) {
    grad[c] = inverse * (grad[c] - mean - normal[c] * projection);
  }
}

/// Shared memory of the two kernels below: a row a warp, two in the backward pass.
inline int64_t head_norm_shared(int64_t channels, int64_t rows_a_warp, int64_t element) {
  return block_warps * rows_a_warp * channels * element;
}

/// The normalised queries and keys (rows, 2, heads, head_dim) of packed (rows, 3, heads, head_dim). A warp a
/// head.
template <class T>
__global__ void normalize_heads(const T* qkv, int64_t rows, int64_t heads, int64_t channels, T* out) {
  using Acc = at::opmath_type<T>;
  GENIE_SHARED(Acc, shared);
  Acc* row = shared + warp_index() * channels;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * block_warps + warp_index();
  if (item >= rows * 2 * heads) return;
  const int64_t of_row = item / (2 * heads), rest = item % (2 * heads);
  const T* from = qkv + (of_row * 3 * heads + rest) * channels;
  for (int64_t c = lane_index(); c < channels; c += warp_size) row[c] = static_cast<Acc>(from[c]);
  normalize_row(row, channels);
  T* to = out + item * channels;
  for (int64_t c = lane_index(); c < channels; c += warp_size) to[c] = static_cast<T>(row[c]);
}

/// Packs the gradients by (normalised, where `norm`) queries and keys, and by values, into that of packed
/// qkv.
template <class T>
__global__ void pack_gradients(const T* qkv, int64_t rows, int64_t heads, int64_t channels, bool norm,
                               HeadArray<const T> grad_q, HeadArray<const T> grad_k,
                               HeadArray<const T> grad_v, T* grad_qkv) {
  using Acc = at::opmath_type<T>;
  GENIE_SHARED(Acc, shared);
  Acc* normal = shared + warp_index() * 2 * channels;
  Acc* grad = normal + channels;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * block_warps + warp_index();
  if (item >= rows * 3 * heads) return;
  const int64_t of_row = item / (3 * heads), part = item / heads % 3, head = item % heads;
  const T* from = (part == 0 ? grad_q : part == 1 ? grad_k : grad_v).at(of_row, head);
  T* to = grad_qkv + item * channels;
  if (!norm || part == 2) {
    for (int64_t c = lane_index(); c < channels; c += warp_size) to[c] = from[c];
    return;
  }
  const T* input = qkv + item * channels;
  for (int64_t c = lane_index(); c < channels; c += warp_size) {
    normal[c] = static_cast<Acc>(input[c]);
    grad[c] = static_cast<Acc>(from[c]);
  }
  const Acc inverse = normalize_row(normal, channels);
  normalize_row_backward(normal, inverse, channels, grad);
  for (int64_t c = lane_index(); c < channels; c += warp_size) to[c] = static_cast<T>(grad[c]);
}

}  // namespace genie::ops
