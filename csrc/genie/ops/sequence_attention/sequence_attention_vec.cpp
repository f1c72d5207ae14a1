#include <ATen/Dispatch.h>

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "genie/ops/sequence_attention/hand_out_vec.h"
#include "genie/ops/sequence_attention/short_sequences_vec.h"

namespace genie::ops {
inline namespace CPU_CAPABILITY {
namespace {

/// Query rows handled together: as many as keep their scores in the second-level cache, fewer where causality
/// lets a block skip what lies behind its last row.
int64_t block_rows(const SequenceAttention& task, int64_t length) {
  constexpr int64_t scores = 65536;
  const int64_t most = task.limits && length > 48 ? 12 : 48;
  return std::clamp<int64_t>(scores / std::max<int64_t>(length, 1), 6, most) / 6 * 6;
}

/// Whether results go past the caches: where together they are too large for them.
template <class T>
bool past_caches(const SequenceAttention& task, std::initializer_list<HeadRows<void>> results) {
  constexpr size_t caches = 32 << 20;
  const auto elements = static_cast<size_t>(task.offsets[task.count] * task.heads * task.head_dim);
  return streams<T> && results.size() * elements * sizeof(T) >= caches &&
         std::ranges::all_of(results, [&](const auto& r) { return rows_are_aligned<T>(r, task.head_dim); });
}

/// The buffers of one thread in the forward pass.
template <class T>
class Forward {
 public:
  using Acc = at::opmath_type<T>;
  static constexpr int64_t matrices = 3;

  Forward(const SequenceAttention& task, HeadRows<void> out)
      : task_(task), out_(out), ahead_({task.q, task.k, task.v}) {}

  void operator()(const HeadBlock& block, const int64_t* limits, const HeadBlock* next) {
    const int64_t heads = block.heads, length = block.count;
    if (length == 0) return;
    gather<T>(task_.q, block, q_, task_.qk_norm ? &inverse_std_ : nullptr);
    gather<T>(task_.k, block, k_, task_.qk_norm ? &inverse_std_ : nullptr);
    gather<T>(task_.v, block, v_);
    inverse_sum_.resize(static_cast<size_t>(heads * length));
    ahead_.expect(next);
    for (int64_t h = 0; h < heads; ++h) {
      if (length <= ShortAttention<Acc>::longest) {
        const int64_t top = h * length;
        int64_t part = 3 * h;
        short_.forward(q_.row(top), k_.row(top), v_.row(top), q_.stride, length, limits,
                       inverse_sum_.data() + top, [&] { ahead_.fetch(++part, 3 * heads); });
      } else {
        attend(block, h * length, limits);
      }
    }
    if (heads > 1 || length <= ShortAttention<Acc>::longest)
      scatter<T>(q_, 0, inverse_sum_.data(), out_, block);
  }

 private:
  /// The head whose rows begin at `top`. Its results, not yet divided by the sums, take the place of its
  /// queries; those of a head alone are written at once.
  void attend(const HeadBlock& heads, int64_t top, const int64_t* limits) {
    const int64_t length = heads.count, channels = heads.channels;
    k_panels_.resize(static_cast<size_t>(panels_size<Acc>(channels, length)));
    v_panels_.resize(static_cast<size_t>(panels_size<Acc>(length, channels)));
    pack_transposed(k_.row(top), k_.stride, channels, length, k_panels_.data());
    pack(v_.row(top), v_.stride, length, channels, v_panels_.data());
    const int64_t block = block_rows(task_, length);
    scores_.resize_for_columns(block, length);
    for (int64_t begin = 0; begin < length; begin += block) {
      const int64_t count = std::min(block, length - begin);
      const int64_t reach = limits ? limits[begin + count - 1] : length;
      Acc* q = q_.row(top + begin);
      gemm<Acc>(count, reach, channels, {q, q_.stride, 1}, in_panels(k_panels_.data(), channels),
                scores_.row(0), scores_.stride);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t visible = limits ? limits[begin + i] : length;
        inverse_sum_[static_cast<size_t>(top + begin + i)] =
            Acc(1) / exponentials(scores_.row(i), visible, round_up(reach, panel_width<Acc>()),
                                  static_cast<Acc>(task_.scale), bounded_);
      }
      gemm<Acc>(count, channels, reach, {scores_.row(0), scores_.stride, 1},
                in_panels(v_panels_.data(), length), q, q_.stride);
      if (heads.heads == 1) {
        scatter<T>(q_, begin, inverse_sum_.data(), out_,
                   {heads.first_head, 1, heads.rows + begin, count, channels});
      }
      ahead_.fetch(top + begin + count, heads.heads * length);
    }
  }

  const SequenceAttention& task_;
  HeadRows<void> out_;
  RowsAhead<T> ahead_;
  const bool bounded_ = scores_are_bounded(task_.qk_norm, task_.scale, task_.head_dim);
  ShortAttention<Acc> short_{task_.head_dim, task_.scale, bounded_};
  Scratch<Acc> q_, k_, v_, scores_;
  std::vector<Acc> k_panels_, v_panels_, inverse_sum_, inverse_std_;
};

struct Gradients {
  HeadRows<const void> out;
  HeadRows<void> q, k, v;
};

/// The buffers of one thread in the backward pass.
template <class T>
class Backward {
 public:
  using Acc = at::opmath_type<T>;
  static constexpr int64_t matrices = 7;

  Backward(const SequenceAttention& task, const Gradients& gradients)
      : task_(task),
        gradients_(gradients),
        past_caches_(past_caches<T>(task, {gradients.q, gradients.k, gradients.v})),
        ahead_({task.q, task.k, task.v, gradients.out}) {}

  void operator()(const HeadBlock& block, const int64_t* limits, const HeadBlock* next) {
    const int64_t heads = block.heads, length = block.count, channels = task_.head_dim;
    if (length == 0) return;
    gather<T>(task_.q, block, q_, task_.qk_norm ? &q_inverse_std_ : nullptr);
    gather<T>(task_.k, block, k_, task_.qk_norm ? &k_inverse_std_ : nullptr);
    gather<T>(task_.v, block, v_);
    gather<T>(gradients_.out, block, grad_out_);
    grad_q_.resize(heads * length, channels);
    for (Scratch<Acc>* grad : {&grad_k_, &grad_v_}) grad->resize(heads * length, channels);
    ahead_.expect(next);
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t top = h * length;
      if (length <= ShortAttention<Acc>::longest) {
        int64_t part = 7 * h;
        short_.backward(q_.row(top), k_.row(top), v_.row(top), grad_out_.row(top), q_.stride, length, limits,
                        grad_q_.row(top), grad_k_.row(top), grad_v_.row(top),
                        [&] { ahead_.fetch(++part, 7 * heads); });
      } else {
        differentiate(top, length, heads * length, limits);
      }
    }
    if (task_.qk_norm) {
      normalize_backward(q_, q_inverse_std_, heads * length, channels, grad_q_);
      normalize_backward(k_, k_inverse_std_, heads * length, channels, grad_k_);
    }
    const Acc* no_factor = nullptr;
    scatter<T>(grad_q_, 0, no_factor, gradients_.q, block, past_caches_);
    scatter<T>(grad_k_, 0, no_factor, gradients_.k, block, past_caches_);
    scatter<T>(grad_v_, 0, no_factor, gradients_.v, block, past_caches_);
  }

 private:
  /// The gradients of the head whose rows begin at `top`.
  void differentiate(int64_t top, int64_t length, int64_t all, const int64_t* limits) {
    const int64_t channels = task_.head_dim;
    const auto transposed = static_cast<size_t>(panels_size<Acc>(channels, length));
    k_transposed_.resize(transposed);
    v_transposed_.resize(transposed);
    k_panels_.resize(static_cast<size_t>(panels_size<Acc>(length, channels)));
    pack_transposed(k_.row(top), k_.stride, channels, length, k_transposed_.data());
    pack_transposed(v_.row(top), v_.stride, channels, length, v_transposed_.data());
    pack(k_.row(top), k_.stride, length, channels, k_panels_.data());
    std::fill_n(grad_k_.row(top), length * grad_k_.stride, Acc(0));
    std::fill_n(grad_v_.row(top), length * grad_v_.stride, Acc(0));
    const int64_t block = block_rows(task_, length);
    weights_.resize_for_columns(block, length);
    grad_scores_.resize_for_columns(block, length);
    for (int64_t begin = 0; begin < length; begin += block) {
      const int64_t count = std::min(block, length - begin);
      const int64_t reach = limits ? limits[begin + count - 1] : length;
      Acc *q = q_.row(top + begin), *grad_out = grad_out_.row(top + begin);
      differentiate_scores(q, grad_out, count, reach, limits ? limits + begin : nullptr);
      // Each product with the scores on one side: by q from k, by k from q, by v from the output's gradient.
      gemm<Acc>(count, channels, reach, {grad_scores_.row(0), grad_scores_.stride, 1},
                in_panels(k_panels_.data(), length), grad_q_.row(top + begin), grad_q_.stride);
      const int64_t packed = panels_size<Acc>(count, channels);
      block_panels_.resize(static_cast<size_t>(packed));
      pack(q, q_.stride, count, channels, block_panels_.data());
      gemm<Acc>(reach, channels, count, {grad_scores_.row(0), 1, grad_scores_.stride},
                in_panels(block_panels_.data(), count), grad_k_.row(top), grad_k_.stride, true);
      pack(grad_out, grad_out_.stride, count, channels, block_panels_.data());
      gemm<Acc>(reach, channels, count, {weights_.row(0), 1, weights_.stride},
                in_panels(block_panels_.data(), count), grad_v_.row(top), grad_v_.stride, true);
      ahead_.fetch(top + begin + count, all);
    }
  }

  /// The exponentials of the block's scores, and the gradient by the scores before the softmax. `grad_out` is
  /// divided by the exponentials' sums afterwards, so that they need not be. `limits` are the block's;
  /// without them every row sees `reach` elements.
  void differentiate_scores(const Acc* q, Acc* grad_out, int64_t count, int64_t reach,
                            const int64_t* limits) {
    using Vec = at::vec::Vectorized<Acc>;
    const int64_t channels = task_.head_dim;
    const auto scale = static_cast<Acc>(task_.scale);
    gemm<Acc>(count, reach, channels, {q, q_.stride, 1}, in_panels(k_transposed_.data(), channels),
              weights_.row(0), weights_.stride);
    gemm<Acc>(count, reach, channels, {grad_out, grad_out_.stride, 1},
              in_panels(v_transposed_.data(), channels), grad_scores_.row(0), grad_scores_.stride);
    const int64_t padded = round_up(reach, Vec::size());
    for (int64_t i = 0; i < count; ++i, grad_out += grad_out_.stride) {
      const Acc* weight = weights_.row(i);
      Acc* grad = grad_scores_.row(i);
      Vec projection(Acc(0));
      const Acc sum = exponentials(weights_.row(i), limits ? limits[i] : reach, padded, scale, bounded_,
                                   [&](int64_t j, Vec value) {
                                     projection = at::vec::fmadd(value, Vec::loadu(grad + j), projection);
                                   });
      const Vec inverse(Acc(1) / sum), mean(sum_of(projection) / sum), factor(scale / sum);
      for (int64_t j = 0; j < padded; j += Vec::size()) {
        (Vec::loadu(weight + j) * factor * (Vec::loadu(grad + j) - mean)).store(grad + j);
      }
      for (int64_t c = 0; c < grad_out_.stride; c += Vec::size()) {
        (Vec::loadu(grad_out + c) * inverse).store(grad_out + c);
      }
    }
  }

  const SequenceAttention& task_;
  const Gradients& gradients_;
  const bool past_caches_;
  RowsAhead<T> ahead_;
  const bool bounded_ = scores_are_bounded(task_.qk_norm, task_.scale, task_.head_dim);
  ShortAttention<Acc> short_{task_.head_dim, task_.scale, bounded_};
  Scratch<Acc> q_, k_, v_, grad_out_, weights_, grad_scores_, grad_q_, grad_k_, grad_v_;
  std::vector<Acc> k_transposed_, v_transposed_, k_panels_, block_panels_, q_inverse_std_, k_inverse_std_;
};

void forward(const SequenceAttention& task, HeadRows<void> out) {
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, task.dtype, "attend_sequences", [&] {
    for_each_head<Forward<scalar_t>>(task, [&] { return Forward<scalar_t>(task, out); });
  });
}

void backward(const SequenceAttention& task, HeadRows<const void> grad_out, HeadRows<void> grad_q,
              HeadRows<void> grad_k, HeadRows<void> grad_v) {
  const Gradients gradients{grad_out, grad_q, grad_k, grad_v};
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, task.dtype, "attend_sequences_backward", [&] {
    for_each_head<Backward<scalar_t>>(task, [&] { return Backward<scalar_t>(task, gradients); });
  });
}

}  // namespace
}  // namespace CPU_CAPABILITY

GENIE_CPU_KERNEL(attend_sequences, forward);
GENIE_CPU_KERNEL(attend_sequences_backward, backward);

}  // namespace genie::ops
