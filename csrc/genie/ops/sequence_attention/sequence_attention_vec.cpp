#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <atomic>
#include <initializer_list>
#include <numeric>
#include <vector>

#include "genie/ops/sequence_attention/head_rows_vec.h"

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

/// The sequences, longest first; empty where all are of one length.
std::vector<int64_t> longest_first(const SequenceAttention& task) {
  const auto length = [&](int64_t i) { return task.offsets[i + 1] - task.offsets[i]; };
  int64_t first = 0;
  while (first < task.count && length(first) == length(0)) ++first;
  if (first == task.count) return {};
  std::vector<int64_t> order(static_cast<size_t>(task.count));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return length(a) > length(b); });
  return order;
}

/// Calls body(sequence, head) for all of them in parallel. Heads of a sequence follow each other: they share
/// cache lines. Sequences of different lengths are handed out one by one, the longest first, so that no
/// thread waits long for another at the end.
template <class Body>
void for_each_head(const SequenceAttention& task, const Body& make_body) {
  const int64_t items = task.count * task.heads;
  const std::vector<int64_t> order = longest_first(task);
  if (order.empty()) {
    at::parallel_for(0, items, 1, [&](int64_t begin, int64_t end) {
      auto body = make_body();
      for (int64_t item = begin; item < end; ++item) {
        if (item + 1 < end) body.prefetch((item + 1) / task.heads, (item + 1) % task.heads);
        body(item / task.heads, item % task.heads);
      }
    });
    return;
  }
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, std::min<int64_t>(at::get_num_threads(), items), 1, [&](int64_t, int64_t) {
    auto body = make_body();
    for (int64_t item = next++; item < items; item = next++) {
      body(order[static_cast<size_t>(item / task.heads)], item % task.heads);
    }
  });
}

/// Asks for a head's rows ahead of time: the rows of a short sequence may lie far apart, where the processor
/// does not expect them.
template <class T>
void prefetch_rows(const SequenceAttention& task, std::initializer_list<HeadRows<const void>> sources,
                   int64_t sequence, int64_t head) {
  constexpr int64_t few = 64, cache_line = 64;
  const int64_t first = task.offsets[sequence], last = task.offsets[sequence + 1];
  if (last - first > few) return;
  for (const auto& source : sources) {
    const T* base = static_cast<const T*>(source.data) + head * source.head_stride;
    for (int64_t i = first; i < last; ++i) {
      const char* row = reinterpret_cast<const char*>(base + task.rows[i] * source.row_stride);
      for (int64_t byte = 0; byte < task.head_dim * static_cast<int64_t>(sizeof(T)); byte += cache_line) {
        __builtin_prefetch(row + byte);
      }
    }
  }
}

/// The buffers of one thread in the forward pass.
template <class T>
class Forward {
 public:
  using Acc = at::opmath_type<T>;

  Forward(const SequenceAttention& task, HeadRows<void> out) : task_(task), out_(out) {}

  void prefetch(int64_t sequence, int64_t head) const {
    prefetch_rows<T>(task_, {task_.q, task_.k, task_.v}, sequence, head);
  }

  void operator()(int64_t sequence, int64_t head) {
    const int64_t first = task_.offsets[sequence];
    const int64_t length = task_.offsets[sequence + 1] - first;
    if (length == 0) return;
    const int64_t* rows = task_.rows + first;
    const int64_t* limits = task_.limits ? task_.limits + first : nullptr;
    const int64_t channels = task_.head_dim;
    load(head, rows, length);
    const int64_t block = block_rows(task_, length);
    scores_.resize(block, length);
    result_.resize(block, channels);
    inverse_sum_.resize(static_cast<size_t>(block));
    for (int64_t begin = 0; begin < length; begin += block) {
      const int64_t count = std::min(block, length - begin);
      const int64_t reach = limits ? limits[begin + count - 1] : length;
      gemm<Acc>(count, reach, channels, {q_.row(begin), q_.stride, 1}, k_panels_.data(), channels,
                scores_.row(0), scores_.stride);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t visible = limits ? limits[begin + i] : length;
        inverse_sum_[static_cast<size_t>(i)] =
            Acc(1) / exponentials(scores_.row(i), visible, round_up(reach, panel_width<Acc>()),
                                  static_cast<Acc>(task_.scale));
      }
      gemm<Acc>(count, channels, reach, {scores_.row(0), scores_.stride, 1}, v_panels_.data(), length,
                result_.row(0), result_.stride);
      scatter<T>(result_, inverse_sum_.data(), out_, head, rows + begin, count, channels);
    }
  }

 private:
  void load(int64_t head, const int64_t* rows, int64_t length) {
    const int64_t channels = task_.head_dim;
    gather<T>(task_.q, head, rows, length, channels, q_);
    gather<T>(task_.k, head, rows, length, channels, k_);
    gather<T>(task_.v, head, rows, length, channels, v_);
    if (task_.qk_norm) {
      normalize(q_, length, channels, inverse_std_);
      normalize(k_, length, channels, inverse_std_);
    }
    k_panels_.resize(static_cast<size_t>(panels_size<Acc>(channels, length)));
    v_panels_.resize(static_cast<size_t>(panels_size<Acc>(length, channels)));
    pack_transposed(k_.row(0), k_.stride, channels, length, k_panels_.data());
    pack(v_.row(0), v_.stride, length, channels, v_panels_.data());
  }

  const SequenceAttention& task_;
  HeadRows<void> out_;
  Scratch<Acc> q_, k_, v_, scores_, result_;
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

  Backward(const SequenceAttention& task, const Gradients& gradients) : task_(task), gradients_(gradients) {}

  void prefetch(int64_t sequence, int64_t head) const {
    prefetch_rows<T>(task_, {task_.q, task_.k, task_.v, gradients_.out}, sequence, head);
  }

  void operator()(int64_t sequence, int64_t head) {
    const int64_t first = task_.offsets[sequence];
    const int64_t length = task_.offsets[sequence + 1] - first;
    if (length == 0) return;
    const int64_t* rows = task_.rows + first;
    const int64_t* limits = task_.limits ? task_.limits + first : nullptr;
    const int64_t channels = task_.head_dim;
    load(head, rows, length);
    const int64_t block = block_rows(task_, length);
    weights_.resize(block, length);
    grad_scores_.resize(block, length);
    for (int64_t begin = 0; begin < length; begin += block) {
      const int64_t count = std::min(block, length - begin);
      const int64_t reach = limits ? limits[begin + count - 1] : length;
      differentiate_scores(begin, count, reach, limits, length);
      // Each product with the scores on one side: by q from k, by k from q, by v from the output's gradient.
      gemm<Acc>(count, channels, reach, {grad_scores_.row(0), grad_scores_.stride, 1}, k_panels_.data(),
                length, grad_q_.row(begin), grad_q_.stride);
      const int64_t packed = panels_size<Acc>(count, channels);
      block_panels_.resize(static_cast<size_t>(packed));
      pack(q_.row(begin), q_.stride, count, channels, block_panels_.data());
      gemm<Acc>(reach, channels, count, {grad_scores_.row(0), 1, grad_scores_.stride}, block_panels_.data(),
                count, grad_k_.row(0), grad_k_.stride, true);
      pack(grad_out_.row(begin), grad_out_.stride, count, channels, block_panels_.data());
      gemm<Acc>(reach, channels, count, {weights_.row(0), 1, weights_.stride}, block_panels_.data(), count,
                grad_v_.row(0), grad_v_.stride, true);
    }
    if (task_.qk_norm) {
      normalize_backward(q_, q_inverse_std_, length, channels, grad_q_);
      normalize_backward(k_, k_inverse_std_, length, channels, grad_k_);
    }
    const Acc* no_factor = nullptr;
    scatter<T>(grad_q_, no_factor, gradients_.q, head, rows, length, channels);
    scatter<T>(grad_k_, no_factor, gradients_.k, head, rows, length, channels);
    scatter<T>(grad_v_, no_factor, gradients_.v, head, rows, length, channels);
  }

 private:
  void load(int64_t head, const int64_t* rows, int64_t length) {
    const int64_t channels = task_.head_dim;
    gather<T>(task_.q, head, rows, length, channels, q_);
    gather<T>(task_.k, head, rows, length, channels, k_);
    gather<T>(task_.v, head, rows, length, channels, v_);
    gather<T>(gradients_.out, head, rows, length, channels, grad_out_);
    if (task_.qk_norm) {
      normalize(q_, length, channels, q_inverse_std_);
      normalize(k_, length, channels, k_inverse_std_);
    }
    const auto transposed = static_cast<size_t>(panels_size<Acc>(channels, length));
    k_transposed_.resize(transposed);
    v_transposed_.resize(transposed);
    k_panels_.resize(static_cast<size_t>(panels_size<Acc>(length, channels)));
    pack_transposed(k_.row(0), k_.stride, channels, length, k_transposed_.data());
    pack_transposed(v_.row(0), v_.stride, channels, length, v_transposed_.data());
    pack(k_.row(0), k_.stride, length, channels, k_panels_.data());
    grad_q_.resize(length, channels);
    for (Scratch<Acc>* grad : {&grad_k_, &grad_v_}) {
      grad->resize(length, channels);
      std::fill(grad->storage.begin(), grad->storage.end(), Acc(0));
    }
  }

  /// The attention weights of the block's rows, and the gradient by the scores before the softmax.
  void differentiate_scores(int64_t begin, int64_t count, int64_t reach, const int64_t* limits,
                            int64_t length) {
    using Vec = at::vec::Vectorized<Acc>;
    const int64_t channels = task_.head_dim;
    const auto scale = static_cast<Acc>(task_.scale);
    gemm<Acc>(count, reach, channels, {q_.row(begin), q_.stride, 1}, k_transposed_.data(), channels,
              weights_.row(0), weights_.stride);
    gemm<Acc>(count, reach, channels, {grad_out_.row(begin), grad_out_.stride, 1}, v_transposed_.data(),
              channels, grad_scores_.row(0), grad_scores_.stride);
    const int64_t padded = round_up(reach, Vec::size());
    for (int64_t i = 0; i < count; ++i) {
      const int64_t visible = limits ? limits[begin + i] : length;
      Acc* weight = weights_.row(i);
      Acc* grad = grad_scores_.row(i);
      const Vec inverse(Acc(1) / exponentials(weight, visible, padded, scale));
      Vec projection(Acc(0));
      for (int64_t j = 0; j < padded; j += Vec::size()) {
        const Vec value = Vec::loadu(weight + j) * inverse;
        value.store(weight + j);
        projection = at::vec::fmadd(value, Vec::loadu(grad + j), projection);
      }
      const Vec mean(sum_of(projection));
      for (int64_t j = 0; j < padded; j += Vec::size()) {
        (Vec::loadu(weight + j) * (Vec::loadu(grad + j) - mean) * Vec(scale)).store(grad + j);
      }
    }
  }

  const SequenceAttention& task_;
  const Gradients& gradients_;
  Scratch<Acc> q_, k_, v_, grad_out_, weights_, grad_scores_, grad_q_, grad_k_, grad_v_;
  std::vector<Acc> k_transposed_, v_transposed_, k_panels_, block_panels_, q_inverse_std_, k_inverse_std_;
};

void forward(const SequenceAttention& task, HeadRows<void> out) {
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, task.dtype, "attend_sequences",
                                 [&] { for_each_head(task, [&] { return Forward<scalar_t>(task, out); }); });
}

void backward(const SequenceAttention& task, HeadRows<const void> grad_out, HeadRows<void> grad_q,
              HeadRows<void> grad_k, HeadRows<void> grad_v) {
  const Gradients gradients{grad_out, grad_q, grad_k, grad_v};
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, task.dtype, "attend_sequences_backward", [&] {
    for_each_head(task, [&] { return Backward<scalar_t>(task, gradients); });
  });
}

}  // namespace
}  // namespace CPU_CAPABILITY

GENIE_CPU_KERNEL(attend_sequences, forward);
GENIE_CPU_KERNEL(attend_sequences_backward, backward);

}  // namespace genie::ops
