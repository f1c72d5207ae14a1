#pragma once

// Attention inside sequences so short that all their scores fit a core's first cache. Only for *_vec.cpp
// files.

#include <algorithm>
#include <limits>
#include <vector>

#include "genie/ops/sequence_attention/head_rows_vec.h"

namespace genie::ops {
inline namespace CPU_CAPABILITY {

/// Scores lie transposed here, a row for each key, so that the softmax runs over whole vectors of queries:
/// nothing is summed within a vector, and products take rows as they lie.
template <class Acc>
class ShortAttention {
 public:
  static constexpr int64_t longest = 32;

  ShortAttention(int64_t channels, double scale, bool bounded)
      : channels_(channels), scale_(static_cast<Acc>(scale)), bounded_(bounded) {}

  /// Rows of one head, dense and of the same stride. The results, not yet divided by the sums, take the place
  /// of q; 1/sum of each row is returned in `inverse_sum`. `limits` as in SequenceAttention. `pause` is
  /// called between the products.
  void forward(Acc* q, const Acc* k, const Acc* v, int64_t stride, int64_t length, const int64_t* limits,
               Acc* inverse_sum, const auto& pause) {
    weigh(q, k, stride, length, limits, pause);
    for (int64_t i = 0; i < length; i += Vec::size()) {
      Vec::loadu(inverse_sum_.data() + i)
          .store(inverse_sum + i, static_cast<int>(std::min<int64_t>(Vec::size(), length - i)));
    }
    by_query(weights_, v, stride, length, limits, q);
    pause();
  }

  /// The gradients by q, k and v, from that by the (divided) results.
  void backward(const Acc* q, const Acc* k, const Acc* v, const Acc* grad_out, int64_t stride, int64_t length,
                const int64_t* limits, Acc* grad_q, Acc* grad_k, Acc* grad_v, const auto& pause) {
    weigh(q, k, stride, length, limits, pause);
    transpose(grad_out, stride, length);
    grad_scores_.resize(length, length);
    gemm<Acc>(length, length, channels_, {v, stride, 1}, in_panels(panels_.data(), channels_),
              grad_scores_.row(0), grad_scores_.stride);
    pause();
    differentiate_softmax(length);
    pause();
    by_query(grad_scores_, k, stride, length, limits, grad_q);
    pause();
    by_key(grad_scores_, q, stride, length, limits, grad_k);
    pause();
    by_key(weights_, grad_out, stride, length, limits, grad_v);
    pause();
  }

 private:
  using Vec = at::vec::Vectorized<Acc>;
  static constexpr int64_t tile = 6;  // rows of a product that are done together

  /// out[i] = sum over j of scores[j][i] rows[j], of those j that i sees.
  void by_query(Scratch<Acc>& scores, const Acc* rows, int64_t stride, int64_t length, const int64_t* limits,
                Acc* out) {
    for (int64_t i = 0; i < length; i += tile) {
      const int64_t count = std::min(tile, length - i), reach = limits ? limits[i + count - 1] : length;
      gemm<Acc>(count, channels_, reach, {scores.row(0) + i, 1, scores.stride}, in_rows(rows, stride),
                out + i * stride, stride);
    }
  }

  /// out[j] = sum over i of scores[j][i] rows[i], of those i that see j.
  void by_key(Scratch<Acc>& scores, const Acc* rows, int64_t stride, int64_t length, const int64_t* limits,
              Acc* out) {
    int64_t first = 0;
    for (int64_t j = 0; j < length; j += tile) {
      while (limits && first < length - 1 && limits[first] <= j) ++first;
      gemm<Acc>(std::min(tile, length - j), channels_, length - first,
                {scores.row(j) + first, scores.stride, 1}, in_rows(rows + first * stride, stride),
                out + j * stride, stride);
    }
  }

  void transpose(const Acc* rows, int64_t stride, int64_t length) {
    panels_.resize(static_cast<size_t>(panels_size<Acc>(channels_, length)));
    pack_transposed(rows, stride, channels_, length, panels_.data());
  }

  /// weights[j][i] = exp(scale q_i k_j - shift_i), 0 where i does not see j, and the sums over j.
  void weigh(const Acc* q, const Acc* k, int64_t stride, int64_t length, const int64_t* limits,
             const auto& pause) {
    transpose(q, stride, length);
    weights_.resize(length, length);
    gemm<Acc>(length, length, channels_, {k, stride, 1}, in_panels(panels_.data(), channels_),
              weights_.row(0), weights_.stride);
    pause();
    const ScaledExponential<Acc> exponential(scale_);
    const int64_t padded = round_up(length, Vec::size());
    limits_.assign(static_cast<size_t>(padded), static_cast<Acc>(length));
    if (limits) std::copy_n(limits, length, limits_.begin());
    inverse_sum_.resize(static_cast<size_t>(padded));
    for (int64_t i = 0; i < padded; i += Vec::size()) {
      // Limits never fall: the last query of the vector sees furthest.
      const int64_t reach = limits ? limits[std::min(i + Vec::size(), length) - 1] : length;
      const Vec limit = Vec::loadu(limits_.data() + i);
      Vec shift(Acc(0));
      if (!bounded_) {
        constexpr Acc lowest = -std::numeric_limits<Acc>::infinity();
        shift = Vec(lowest);
        for (int64_t j = 0; j < reach; ++j) {
          const Vec score = exponential.rank(Vec::loadu(weights_.row(j) + i));
          shift = at::vec::maximum(shift, Vec::blendv(Vec(lowest), score, limit > Vec(static_cast<Acc>(j))));
        }
      }
      Vec total(Acc(0));
      for (int64_t j = 0; j < reach; ++j) {
        Acc* weight = weights_.row(j) + i;
        const Vec value = Vec::blendv(Vec(Acc(0)), exponential(Vec::loadu(weight), shift),
                                      limit > Vec(static_cast<Acc>(j)));
        value.store(weight);
        total = total + value;
      }
      for (int64_t j = reach; j < length; ++j) Vec(Acc(0)).store(weights_.row(j) + i);
      (Vec(Acc(1)) / total).store(inverse_sum_.data() + i);
    }
    pause();
  }

  /// Divides the weights by their sums, and turns the gradients by the weights into those by the scores.
  void differentiate_softmax(int64_t length) {
    for (int64_t i = 0; i < round_up(length, Vec::size()); i += Vec::size()) {
      const Vec inverse = Vec::loadu(inverse_sum_.data() + i);
      Vec mean(Acc(0));
      for (int64_t j = 0; j < length; ++j) {
        mean = at::vec::fmadd(Vec::loadu(weights_.row(j) + i), Vec::loadu(grad_scores_.row(j) + i), mean);
      }
      mean = mean * inverse;
      for (int64_t j = 0; j < length; ++j) {
        Acc *weight = weights_.row(j) + i, *grad = grad_scores_.row(j) + i;
        const Vec value = Vec::loadu(weight) * inverse;
        value.store(weight);
        (value * (Vec::loadu(grad) - mean) * Vec(scale_)).store(grad);
      }
    }
  }

  int64_t channels_;
  Acc scale_;
  bool bounded_;
  Scratch<Acc> weights_, grad_scores_;
  std::vector<Acc> panels_, limits_, inverse_sum_;
};

}  // namespace CPU_CAPABILITY
}  // namespace genie::ops
