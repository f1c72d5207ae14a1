#pragma once

#include "genie/ops/cuda/device.cuh"

namespace genie::ops {

template <class Acc>
__device__ bool is_finite(Acc value) {
  return value - value == Acc(0);
}

/// Half the squared length of each code, infinite where it isn't finite. A thread a code.
template <class T>
__global__ void half_norms_of_codes(const T* codebook, int64_t codes, int64_t channels,
                                    at::opmath_type<T>* half_norms) {
  using Acc = at::opmath_type<T>;
  const int64_t code = static_cast<int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (code >= codes) return;
  Acc norm(0);
  for (int64_t c = 0; c < channels; ++c) {
    const auto value = static_cast<Acc>(codebook[code * channels + c]);
    norm += value * value;
  }
  half_norms[code] = is_finite(norm) ? norm / 2 : -lowest<Acc>();
}

/// Half the squared distance, but for half of x's own length; infinite for a code that isn't finite.
template <class Acc>
__device__ Acc code_score(const Acc* x, const Acc* code, int64_t channels, Acc half_norm) {
  if (!is_finite(half_norm)) return half_norm;
  Acc product(0);
  for (int64_t c = 0; c < channels; ++c) product += x[c] * code[c];
  return half_norm - product;
}

/// Of the codes whose score is at most `limit` the nearest in double precision, of equal ones the first.
template <class T, class Acc>
__device__ int64_t nearest_in_double(const T* x, const Acc* row, const T* codebook, const Acc* half_norms,
                                     int64_t codes, int64_t channels, Acc limit) {
  double least = -lowest<double>();
  int64_t chosen = 0;
  for (int64_t code = lane_index(); code < codes; code += warp_size) {
    const T* entry = codebook + code * channels;
    if (!is_finite(half_norms[code])) continue;
    Acc product(0);
    double distance = 0;
    for (int64_t c = 0; c < channels; ++c) {
      product += row[c] * static_cast<Acc>(entry[c]);
      const double difference = static_cast<double>(x[c]) - static_cast<double>(entry[c]);
      distance += difference * difference;
    }
    if (half_norms[code] - product <= limit && distance < least) {
      least = distance;
      chosen = code;
    }
  }
  for (int step = warp_size / 2; step > 0; step /= 2) {
    const double other = __shfl_xor_sync(all_lanes, least, step);
    const int64_t index = __shfl_xor_sync(all_lanes, chosen, step);
    if (other < least || (other == least && index < chosen)) {
      least = other;
      chosen = index;
    }
  }
  return chosen;
}

/// Bytes of shared memory: a tile of codes, and a vector a warp.
inline int64_t nearest_codes_shared(int64_t channels, int64_t element) {
  return (warp_size + block_warps) * (channels | 1) * element;
}

/// The nearest code of each vector, a warp a vector and a lane a code at a time. `largest`: of half_norms,
/// the largest finite one. What float arithmetic can't tell apart is compared again in double.
template <class T>
__global__ void nearest_codes_of(const T* x, int64_t count, const T* codebook, int64_t codes,
                                 int64_t channels, const at::opmath_type<T>* half_norms,
                                 const at::opmath_type<T>* largest, int64_t* indices, T* quantized) {
  using Acc = at::opmath_type<T>;
  GENIE_SHARED(Acc, tile);
  const int64_t stride = channels | 1;
  Acc* row = tile + (warp_size + warp_index()) * stride;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * block_warps + warp_index();
  const bool active = item < count;  // the others still help to load
  Acc norm(0);
  if (active) {
    for (int64_t c = lane_index(); c < channels; c += warp_size) {
      row[c] = static_cast<Acc>(x[item * channels + c]);
      norm += row[c] * row[c];
    }
  }
  norm = warp_sum(norm);
  // Of this lane's codes the least score, the first code that has it, and the second least score.
  Acc best = -lowest<Acc>(), second = best;
  int64_t code_of_best = codes;
  for (int64_t first = 0; first < codes; first += warp_size) {
    const int64_t loaded = smaller<int64_t>(warp_size, codes - first);
    __syncthreads();
    for (int64_t i = threadIdx.x; i < loaded * channels; i += block_threads) {
      tile[i / channels * stride + i % channels] = static_cast<Acc>(codebook[first * channels + i]);
    }
    __syncthreads();
    if (!active || lane_index() >= loaded) continue;
    const Acc score =
        code_score(row, tile + lane_index() * stride, channels, half_norms[first + lane_index()]);
    if (score < best) {
      second = best;
      best = score;
      code_of_best = first + lane_index();
    } else if (score < second) {
      second = score;
    }
  }
  if (!active) return;
  const Acc least = -warp_max(-best);
  int64_t chosen = 0;  // also of a vector that isn't finite, and where no code is
  if (is_finite(norm) && is_finite(least)) {
    const Acc largest_norm = 2 * *largest;
    const Acc error = 4 * std::numeric_limits<Acc>::epsilon() * static_cast<Acc>(channels + 4) *
                      (std::sqrt(norm * largest_norm) + largest_norm);
    const Acc limit = least + error;
    const int close = warp_sum((best <= limit ? 1 : 0) + (second <= limit ? 1 : 0));
    chosen = close == 1
                 ? warp_max(best <= limit ? code_of_best : int64_t{-1})
                 : nearest_in_double(x + item * channels, row, codebook, half_norms, codes, channels, limit);
  }
  if (lane_index() == 0) indices[item] = chosen;
  for (int64_t c = lane_index(); c < channels; c += warp_size) {
    quantized[item * channels + c] = codebook[chosen * channels + c];
  }
}

}  // namespace genie::ops
