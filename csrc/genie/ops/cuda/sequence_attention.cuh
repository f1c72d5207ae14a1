#pragma once

// Softmax attention inside sequences of rows, on CUDA cores: for short sequences (time), for what torch's
// fused kernels don't take (tokens ordered by frame, float64, head widths), each in one pass over keys with a
// running softmax.

#include "genie/ops/cuda/head_norm.cuh"
#include "genie/ops/cuda/sequence_rows.h"

namespace genie::ops {

/// One of them.
struct Sequence {
  int64_t first, step, length;
  __device__ int64_t row(int64_t i) const { return first + i * step; }
};

/// Offsets outside the rows are cut to them: nothing waits for the device to check them.
__device__ inline Sequence sequence_of(const SequenceRows& rows, int64_t s) {
  if (rows.offsets == nullptr) {
    return {s / rows.inner * rows.inner * rows.length + s % rows.inner, rows.inner, rows.length};
  }
  const int64_t first = larger<int64_t>(rows.offsets[s], 0), last = smaller(rows.offsets[s + 1], rows.total);
  return {first, 1, larger<int64_t>(last - first, 0)};
}

template <class T>
struct AttentionTask {
  SequenceRows rows;
  int64_t heads, head_dim;
  double scale;
  bool qk_norm;  // LayerNorm of each head's q and k
  HeadArray<const T> q, k, v;

  __device__ bool sees(const Sequence& sequence, int64_t query, int64_t key) const {
    if (rows.causal) return key <= query;
    return rows.frames == nullptr || rows.frames[sequence.row(key)] <= rows.frames[sequence.row(query)];
  }
};

constexpr int warp_rows = 4;                        // rows whose results a warp computes together
constexpr int own_rows = block_warps * warp_rows;   // of a block
constexpr int tile_rows = warp_size;                // rows on the other side at a time, one a lane
constexpr int score_count = warp_rows * tile_rows;  // of a warp and a tile

/// Rows of shared memory have an odd stride: lanes that read one channel of 32 rows hit 32 banks.
__host__ __device__ constexpr int64_t shared_stride(int64_t channels) { return channels | 1; }

/// Bytes of shared memory for arrays of own rows and of tile rows, `weights` sets of scores and a number a
/// row.
inline int64_t attention_shared(int64_t channels, int64_t own, int64_t tiles, int64_t weights,
                                int64_t element) {
  return element * ((own * own_rows + tiles * tile_rows) * shared_stride(channels) +
                    weights * block_warps * score_count + own_rows);
}

/// Copies rows begin .. begin + count - 1 of a sequence into shared memory, zeros for those from there to
/// `capacity`. 1/std of each goes to inverse_std, if given, where they are normalised.
template <class T, class Acc>
__device__ void load_rows(const HeadArray<const T>& source, const Sequence& sequence, int64_t head,
                          int64_t begin, int64_t count, int64_t capacity, int64_t channels, bool norm,
                          Acc* out, Acc* inverse_std) {
  const int64_t stride = shared_stride(channels);
  for (int64_t i = warp_index(); i < capacity; i += block_warps) {
    Acc* row = out + i * stride;
    if (i >= count) {
      for (int64_t c = lane_index(); c < channels; c += warp_size) row[c] = Acc(0);
      continue;
    }
    const T* from = source.at(sequence.row(begin + i), head);
    for (int64_t c = lane_index(); c < channels; c += warp_size) row[c] = static_cast<Acc>(from[c]);
    if (!norm) continue;
    const Acc inverse = normalize_row(row, channels);
    if (inverse_std != nullptr && lane_index() == 0) inverse_std[i] = inverse;
  }
}

/// Products of the warp's own rows with the row of this lane.
template <class Acc>
__device__ void multiply(const Acc* own, const Acc* other, int64_t channels, Acc (&products)[warp_rows]) {
  const int64_t stride = shared_stride(channels);
  for (int r = 0; r < warp_rows; ++r) products[r] = Acc(0);
  for (int64_t c = 0; c < channels; ++c) {
    const Acc value = other[c];
    for (int r = 0; r < warp_rows; ++r) products[r] += own[r * stride + c] * value;
  }
}

/// sums[r] = keep[r] sums[r] + the tile's rows weighted by weights[r]; a lane has channels lane, lane + 32,
/// ...
template <class Acc>
__device__ void add_weighted(const Acc* weights, const Acc* tile, int64_t count, int64_t channels,
                             const Acc (&keep)[warp_rows], Acc* sums) {
  const int64_t stride = shared_stride(channels);
  for (int64_t c = lane_index(); c < channels; c += warp_size) {
    Acc added[warp_rows] = {};
    for (int64_t j = 0; j < count; ++j) {
      const Acc value = tile[j * stride + c];
      for (int r = 0; r < warp_rows; ++r) added[r] += weights[r * tile_rows + j] * value;
    }
    for (int r = 0; r < warp_rows; ++r) sums[r * stride + c] = keep[r] * sums[r * stride + c] + added[r];
  }
}

/// Hands the lanes' values of each row to the whole warp, through shared memory.
template <class Acc>
__device__ void share(const Acc (&values)[warp_rows], Acc* weights) {
  __syncwarp();  // the former ones have been read
  for (int r = 0; r < warp_rows; ++r) weights[r * tile_rows + lane_index()] = values[r];
  __syncwarp();
}

/// The softmax of a row so far: exp(score - top) adds up to total, times what it weights to along.
template <class Acc>
struct RunningSoftmax {
  Acc top = lowest<Acc>(), total = Acc(0), along = Acc(0);

  /// Takes in a tile's score of this lane (-inf where the row doesn't see it), and `value`, which the weights
  /// are to be summed with. Returns the weight; `keep` is by what all earlier ones have to be multiplied.
  __device__ Acc add(Acc score, Acc value, Acc& keep) {
    const Acc highest = larger(top, warp_max(score));
    const bool nothing = highest == lowest<Acc>();
    const Acc weight = nothing || score == lowest<Acc>() ? Acc(0) : std::exp(score - highest);
    keep = nothing || highest == top ? Acc(1) : std::exp(top - highest);
    total = keep * total + warp_sum(weight);
    along = keep * along + warp_sum(weight * value);
    top = highest;
    return weight;
  }
};

/// Writes softmax(scale q k^T) v. Grid: (sequences * heads, groups of own_rows queries).
template <class T>
__global__ void attend(AttentionTask<T> task, HeadArray<T> out) {
  using Acc = at::opmath_type<T>;
  GENIE_SHARED(Acc, shared);
  const int64_t channels = task.head_dim, stride = shared_stride(channels);
  Acc* q = shared;
  Acc* sums = q + own_rows * stride;
  Acc* k = sums + own_rows * stride;
  Acc* v = k + tile_rows * stride;
  Acc* weights = v + tile_rows * stride + warp_index() * score_count;
  const int64_t head = blockIdx.x % task.heads;
  const Sequence sequence = sequence_of(task.rows, blockIdx.x / task.heads);
  const int64_t mine = warp_index() * warp_rows;  // the warp's first row of the block's
  for (int64_t begin = blockIdx.y * int64_t{own_rows}; begin < sequence.length;
       begin += gridDim.y * int64_t{own_rows}) {
    const int64_t count = smaller<int64_t>(own_rows, sequence.length - begin);
    const int64_t reach = task.rows.causal ? begin + count : sequence.length;
    __syncthreads();  // all are done with the rows before
    load_rows(task.q, sequence, head, begin, count, own_rows, channels, task.qk_norm, q,
              static_cast<Acc*>(nullptr));
    for (int64_t i = threadIdx.x; i < own_rows * stride; i += block_threads) sums[i] = Acc(0);
    RunningSoftmax<Acc> softmax[warp_rows];
    for (int64_t tile = 0; tile < reach; tile += tile_rows) {
      const int64_t keys = smaller<int64_t>(tile_rows, reach - tile);
      __syncthreads();
      load_rows(task.k, sequence, head, tile, keys, tile_rows, channels, task.qk_norm, k,
                static_cast<Acc*>(nullptr));
      load_rows(task.v, sequence, head, tile, keys, tile_rows, channels, false, v,
                static_cast<Acc*>(nullptr));
      __syncthreads();
      Acc products[warp_rows], keep[warp_rows];
      multiply(q + mine * stride, k + lane_index() * stride, channels, products);
      for (int r = 0; r < warp_rows; ++r) {
        const bool seen = mine + r < count && lane_index() < keys &&
                          task.sees(sequence, begin + mine + r, tile + lane_index());
        const Acc score = seen ? static_cast<Acc>(task.scale) * products[r] : lowest<Acc>();
        products[r] = softmax[r].add(score, Acc(0), keep[r]);
      }
      share(products, weights);
      add_weighted(weights, v, keys, channels, keep, sums + mine * stride);
    }
    for (int r = 0; r < warp_rows; ++r) {
      if (mine + r >= count) continue;
      T* to = out.at(sequence.row(begin + mine + r), head);
      for (int64_t c = lane_index(); c < channels; c += warp_size) {
        to[c] = static_cast<T>(sums[(mine + r) * stride + c] / softmax[r].total);
      }
    }
  }
}

/// Turns the gradient of a row in shared memory by normalised values into that by the row, if it was, and
/// writes it.
template <class T, class Acc>
__device__ void store_gradient(bool norm, const Acc* normal, Acc inverse, int64_t channels, Acc* grad,
                               T* to) {
  if (norm) normalize_row_backward(normal, inverse, channels, grad);
  for (int64_t c = lane_index(); c < channels; c += warp_size) to[c] = static_cast<T>(grad[c]);
}

/// Writes the gradient by q, and to `statistics` (rows, heads, 2) each query's log of the sum of exponentials
/// and the mean of the weights' gradients, which attend_backward_kv needs. Grid as attend's.
template <class T>
__global__ void attend_backward_q(AttentionTask<T> task, HeadArray<const T> grad_out, HeadArray<T> grad_q,
                                  at::opmath_type<T>* statistics) {
  using Acc = at::opmath_type<T>;
  GENIE_SHARED(Acc, shared);
  const int64_t channels = task.head_dim, stride = shared_stride(channels);
  const auto scale = static_cast<Acc>(task.scale);
  Acc* q = shared;
  Acc* upstream = q + own_rows * stride;
  Acc* sums = upstream + own_rows * stride;
  Acc* k = sums + own_rows * stride;
  Acc* v = k + tile_rows * stride;
  Acc* weights = v + tile_rows * stride + warp_index() * score_count;
  Acc* inverse_std = v + tile_rows * stride + block_warps * score_count;
  const int64_t head = blockIdx.x % task.heads;
  const Sequence sequence = sequence_of(task.rows, blockIdx.x / task.heads);
  const int64_t mine = warp_index() * warp_rows;
  for (int64_t begin = blockIdx.y * int64_t{own_rows}; begin < sequence.length;
       begin += gridDim.y * int64_t{own_rows}) {
    const int64_t count = smaller<int64_t>(own_rows, sequence.length - begin);
    const int64_t reach = task.rows.causal ? begin + count : sequence.length;
    __syncthreads();
    load_rows(task.q, sequence, head, begin, count, own_rows, channels, task.qk_norm, q, inverse_std);
    load_rows(grad_out, sequence, head, begin, count, own_rows, channels, false, upstream,
              static_cast<Acc*>(nullptr));
    for (int64_t i = threadIdx.x; i < own_rows * stride; i += block_threads) sums[i] = Acc(0);
    RunningSoftmax<Acc> softmax[warp_rows];
    Acc mean[warp_rows];
    // Once over the keys for the softmax, and once more for the gradient.
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t tile = 0; tile < reach; tile += tile_rows) {
        const int64_t keys = smaller<int64_t>(tile_rows, reach - tile);
        if (pass == 0 || reach > tile_rows) {  // a single tile is still there
          __syncthreads();
          load_rows(task.k, sequence, head, tile, keys, tile_rows, channels, task.qk_norm, k,
                    static_cast<Acc*>(nullptr));
          load_rows(task.v, sequence, head, tile, keys, tile_rows, channels, false, v,
                    static_cast<Acc*>(nullptr));
          __syncthreads();
        }
        Acc scores[warp_rows], grads[warp_rows], keep[warp_rows];
        multiply(q + mine * stride, k + lane_index() * stride, channels, scores);
        multiply(upstream + mine * stride, v + lane_index() * stride, channels, grads);
        for (int r = 0; r < warp_rows; ++r) {
          const bool seen = mine + r < count && lane_index() < keys &&
                            task.sees(sequence, begin + mine + r, tile + lane_index());
          const Acc score = seen ? scale * scores[r] : lowest<Acc>();
          if (pass == 0) {
            softmax[r].add(score, seen ? grads[r] : Acc(0), keep[r]);
          } else {
            const Acc weight = seen ? std::exp(score - softmax[r].top) / softmax[r].total : Acc(0);
            scores[r] = seen ? weight * (grads[r] - mean[r]) * scale : Acc(0);
            keep[r] = Acc(1);
          }
        }
        if (pass == 0) continue;
        share(scores, weights);
        add_weighted(weights, k, keys, channels, keep, sums + mine * stride);
      }
      for (int r = 0; r < warp_rows; ++r) mean[r] = softmax[r].along / softmax[r].total;
    }
    for (int r = 0; r < warp_rows; ++r) {
      const int64_t i = mine + r;
      if (i >= count) continue;
      const int64_t row = sequence.row(begin + i);
      if (lane_index() == 0) {
        Acc* entry = statistics + (row * task.heads + head) * 2;
        entry[0] = softmax[r].top + std::log(softmax[r].total);
        entry[1] = mean[r];
      }
      store_gradient(task.qk_norm, q + i * stride, inverse_std[i], channels, sums + i * stride,
                     grad_q.at(row, head));
    }
  }
}

/// Writes the gradients by k and v; a block has keys of its own and goes over all queries. Grid as attend's,
/// of keys.
template <class T>
__global__ void attend_backward_kv(AttentionTask<T> task, HeadArray<const T> grad_out, HeadArray<T> grad_k,
                                   HeadArray<T> grad_v, const at::opmath_type<T>* statistics) {
  using Acc = at::opmath_type<T>;
  GENIE_SHARED(Acc, shared);
  const int64_t channels = task.head_dim, stride = shared_stride(channels);
  const auto scale = static_cast<Acc>(task.scale);
  Acc* k = shared;
  Acc* v = k + own_rows * stride;
  Acc* to_k = v + own_rows * stride;
  Acc* to_v = to_k + own_rows * stride;
  Acc* q = to_v + own_rows * stride;
  Acc* upstream = q + tile_rows * stride;
  Acc* weights = upstream + tile_rows * stride + warp_index() * 2 * score_count;
  Acc* grad_scores = weights + score_count;
  Acc* inverse_std = upstream + tile_rows * stride + block_warps * 2 * score_count;
  const int64_t head = blockIdx.x % task.heads;
  const Sequence sequence = sequence_of(task.rows, blockIdx.x / task.heads);
  const int64_t mine = warp_index() * warp_rows;
  for (int64_t begin = blockIdx.y * int64_t{own_rows}; begin < sequence.length;
       begin += gridDim.y * int64_t{own_rows}) {
    const int64_t count = smaller<int64_t>(own_rows, sequence.length - begin);
    __syncthreads();
    load_rows(task.k, sequence, head, begin, count, own_rows, channels, task.qk_norm, k, inverse_std);
    load_rows(task.v, sequence, head, begin, count, own_rows, channels, false, v, static_cast<Acc*>(nullptr));
    for (int64_t i = threadIdx.x; i < 2 * own_rows * stride; i += block_threads) to_k[i] = Acc(0);
    for (int64_t tile = task.rows.causal ? begin : 0; tile < sequence.length; tile += tile_rows) {
      const int64_t queries = smaller<int64_t>(tile_rows, sequence.length - tile);
      __syncthreads();
      load_rows(task.q, sequence, head, tile, queries, tile_rows, channels, task.qk_norm, q,
                static_cast<Acc*>(nullptr));
      load_rows(grad_out, sequence, head, tile, queries, tile_rows, channels, false, upstream,
                static_cast<Acc*>(nullptr));
      __syncthreads();
      Acc log_sum(0), mean(0);
      if (lane_index() < queries) {
        const Acc* entry = statistics + (sequence.row(tile + lane_index()) * task.heads + head) * 2;
        log_sum = entry[0];
        mean = entry[1];
      }
      Acc scores[warp_rows], grads[warp_rows];
      multiply(k + mine * stride, q + lane_index() * stride, channels, scores);
      multiply(v + mine * stride, upstream + lane_index() * stride, channels, grads);
      for (int r = 0; r < warp_rows; ++r) {
        const bool seen = mine + r < count && lane_index() < queries &&
                          task.sees(sequence, tile + lane_index(), begin + mine + r);
        scores[r] = seen ? std::exp(scale * scores[r] - log_sum) : Acc(0);
        grads[r] = seen ? scores[r] * (grads[r] - mean) * scale : Acc(0);
      }
      share(scores, weights);
      share(grads, grad_scores);
      const Acc keep[warp_rows] = {Acc(1), Acc(1), Acc(1), Acc(1)};
      add_weighted(weights, upstream, queries, channels, keep, to_v + mine * stride);
      add_weighted(grad_scores, q, queries, channels, keep, to_k + mine * stride);
    }
    for (int r = 0; r < warp_rows; ++r) {
      const int64_t i = mine + r;
      if (i >= count) continue;
      const int64_t row = sequence.row(begin + i);
      store_gradient(task.qk_norm, k + i * stride, inverse_std[i], channels, to_k + i * stride,
                     grad_k.at(row, head));
      store_gradient(false, v + i * stride, Acc(1), channels, to_v + i * stride, grad_v.at(row, head));
    }
  }
}

}  // namespace genie::ops
