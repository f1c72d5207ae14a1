#pragma once

#include "genie/ops/cuda/device.cuh"

namespace genie::ops {

/// The map of V-JEPA 2's rotary positions: in each third of the rotated channels neighbours form the pairs.
struct GridRotation {
  const int64_t* ids;
  int64_t batch_stride;  // 0 where the samples share their ids
  int64_t height, width;
  int64_t half;  // pairs of a part

  __host__ __device__ int64_t rotated() const { return 6 * half; }
  __device__ int64_t partner(int64_t c) const { return c ^ 1; }

  /// Cosine and signed sine of channel c of a token.
  template <class Acc>
  __device__ void angle(int64_t sample, int64_t token, int64_t c, Acc& cosine, Acc& sine) const {
    const int64_t id = ids[sample * batch_stride + token];
    const int64_t frame = id / (height * width), rest = id - frame * height * width, row = rest / width;
    const int64_t part = c / (2 * half), channel = c % (2 * half);
    const int64_t place = part == 0 ? frame : part == 1 ? row : rest - row * width;
    const double exponent = -static_cast<double>(channel % half) / static_cast<double>(half);
    const Acc turn = static_cast<Acc>(place) * static_cast<Acc>(std::pow(10000.0, exponent));
    cosine = std::cos(turn);
    sine = channel % 2 == 0 ? -std::sin(turn) : std::sin(turn);
  }
};

/// The map of ViT-5's: in each half of the head channel c pairs with c + head_dim / 4, by tables (tokens,
/// head_dim).
template <class Table>
struct TableRotation {
  const Table* cosines;
  const Table* sines;
  int64_t head_dim;

  __host__ __device__ int64_t rotated() const { return head_dim; }
  __device__ bool is_first(int64_t c) const { return c % (head_dim / 2) < head_dim / 4; }
  __device__ int64_t partner(int64_t c) const { return is_first(c) ? c + head_dim / 4 : c - head_dim / 4; }

  template <class Acc>
  __device__ void angle(int64_t /*sample*/, int64_t token, int64_t c, Acc& cosine, Acc& sine) const {
    cosine = static_cast<Acc>(cosines[token * head_dim + c]);
    const auto value = static_cast<Acc>(sines[token * head_dim + c]);
    sine = is_first(c) ? -value : value;
  }
};

/// Tokens whose heads lie one after another, at strides (in elements) over sample and token.
template <class T>
struct TokenArray {
  const T* data;
  int64_t tokens, heads, head_dim;  // of a sample
  int64_t batch_stride, token_stride;
};

/// Bytes of shared memory: two coefficients a channel.
inline int64_t rotate_shared(int64_t channels, int64_t element) { return 2 * channels * element; }

/// out = the rotation of x, or the transposed map. A block a token: its heads share the angles.
template <class T, class Rotation>
__global__ void rotate(TokenArray<T> x, Rotation rotation, bool transpose, T* out) {
  using Acc = at::opmath_type<T>;
  GENIE_SHARED(Acc, own);  // y[c] = own[c] x[c] + other[c] x[partner of c]
  Acc* other = own + x.head_dim;
  const int64_t item = blockIdx.x, sample = item / x.tokens, token = item % x.tokens;
  for (int64_t c = threadIdx.x; c < rotation.rotated(); c += block_threads) {
    Acc cosine, sine;
    rotation.angle(sample, token, c, cosine, sine);
    own[c] = cosine;
    other[transpose ? rotation.partner(c) : c] = sine;
  }
  __syncthreads();
  const T* from = x.data + sample * x.batch_stride + token * x.token_stride;
  T* to = out + item * x.heads * x.head_dim;
  for (int64_t i = threadIdx.x; i < x.heads * x.head_dim; i += block_threads) {
    const int64_t c = i % x.head_dim;
    if (c >= rotation.rotated()) {
      to[i] = from[i];
      continue;
    }
    const int64_t p = i - c + rotation.partner(c);
    to[i] = static_cast<T>(own[c] * static_cast<Acc>(from[i]) + other[c] * static_cast<Acc>(from[p]));
  }
}

}  // namespace genie::ops
