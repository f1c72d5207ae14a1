#include "genie/ops/past_attention/past_attention.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "genie/ops/sequence_attention/head_rows_vec.h"

namespace genie::ops {
inline namespace CPU_CAPABILITY {
namespace {

/// One thread's buffers; rows are handled one after another.
template <class T>
class Worker {
 public:
  using Acc = at::opmath_type<T>;
  using Vec = at::vec::Vectorized<Acc>;

  explicit Worker(const PastAttention& task)
      : task_(task), width_(task.heads * task.head_dim), padded_(round_up(task.count, Vec::size())) {
    query_.resize(task.heads, task.head_dim);
    key_.resize(task.heads, task.head_dim);
    sum_.resize(task.heads, task.head_dim);
    turned_.resize(static_cast<size_t>(task.head_dim));
    scores_.resize(static_cast<size_t>(task.heads * padded_));
  }

  void operator()(int64_t row) {
    const T* qkv = static_cast<const T*>(task_.qkv) + row * 3 * width_;
    T* keys = static_cast<T*>(task_.keys) + row * task_.slots * width_;
    T* values = static_cast<T*>(task_.values) + row * task_.slots * width_;
    prepare(qkv, query_);
    prepare(qkv + width_, key_);
    const int64_t newest = (task_.first + task_.count - 1) % task_.slots;
    store(key_, keys + newest * width_);
    std::copy_n(qkv + 2 * width_, width_, values + newest * width_);
    for (int64_t j = 0; j < task_.count; ++j) score(keys + slot(j) * width_, j);
    std::fill(sum_.storage.begin(), sum_.storage.end(), Acc(0));
    for (int64_t h = 0; h < task_.heads; ++h) {
      Acc* scores = scores_.data() + h * padded_;
      const Acc total = exponentials(scores, task_.count, padded_, static_cast<Acc>(task_.scale),
                                     scores_are_bounded(true, task_.scale, task_.head_dim));
      for (int64_t j = 0; j < task_.count; ++j) scores[j] /= total;
    }
    for (int64_t j = 0; j < task_.count; ++j) add(values + slot(j) * width_, j);
    store(sum_, static_cast<T*>(task_.out) + row * width_);
  }

 private:
  int64_t slot(int64_t j) const {
    const int64_t s = task_.first + j;
    return s < task_.slots ? s : s - task_.slots;
  }

  /// Heads to rows of a scratch, normalised and turned.
  void prepare(const T* source, Scratch<Acc>& rows) {
    const int64_t channels = task_.head_dim;
    for (int64_t h = 0; h < task_.heads; ++h, source += channels) {
      Acc* row = rows.row(h);
      for (int64_t c = 0; c < channels; ++c) row[c] = static_cast<Acc>(source[c]);
      std::fill(row + channels, row + rows.stride, Acc(0));
    }
    for (int64_t h = 0; h < task_.heads; ++h) normalize_row(rows.row(h), channels);
    if (task_.cosine == nullptr) return;
    const int64_t half = channels / 2, quarter = channels / 4;
    for (int64_t h = 0; h < task_.heads; ++h) {
      Acc* row = rows.row(h);
      for (int64_t c = 0; c < channels; ++c) {
        const Acc other = c % half < quarter ? -row[c + quarter] : row[c - quarter];
        turned_[static_cast<size_t>(c)] =
            row[c] * static_cast<Acc>(task_.cosine[c]) + other * static_cast<Acc>(task_.sine[c]);
      }
      std::copy(turned_.begin(), turned_.end(), row);
    }
  }

  void store(Scratch<Acc>& rows, T* target) {
    for (int64_t h = 0; h < task_.heads; ++h, target += task_.head_dim) {
      const Acc* row = rows.row(h);
      for (int64_t c = 0; c < task_.head_dim; ++c) target[c] = static_cast<T>(row[c]);
    }
  }

  static Vec load(const T* source, int64_t count) {
    if constexpr (std::is_same_v<T, Acc>) {
      return count >= Vec::size() ? Vec::loadu(source) : Vec::loadu(source, count);
    } else {
      __at_align__ Acc wide[Vec::size()] = {};
      for (int64_t c = 0; c < std::min<int64_t>(count, Vec::size()); ++c)
        wide[c] = static_cast<Acc>(source[c]);
      return Vec::loadu(wide);
    }
  }

  void score(const T* key, int64_t j) {
    const int64_t channels = task_.head_dim;
    for (int64_t h = 0; h < task_.heads; ++h, key += channels) {
      const Acc* query = query_.row(h);
      Vec total(Acc(0));
      for (int64_t c = 0; c < channels; c += Vec::size()) {
        total = at::vec::fmadd(Vec::loadu(query + c), load(key + c, channels - c), total);
      }
      scores_[static_cast<size_t>(h * padded_ + j)] = sum_of(total);
    }
  }

  void add(const T* value, int64_t j) {
    const int64_t channels = task_.head_dim;
    for (int64_t h = 0; h < task_.heads; ++h, value += channels) {
      Acc* sum = sum_.row(h);
      const Vec weight(scores_[static_cast<size_t>(h * padded_ + j)]);
      for (int64_t c = 0; c < channels; c += Vec::size()) {
        at::vec::fmadd(weight, load(value + c, channels - c), Vec::loadu(sum + c)).store(sum + c);
      }
    }
  }

  const PastAttention& task_;
  int64_t width_, padded_;
  Scratch<Acc> query_, key_, sum_;
  std::vector<Acc> turned_, scores_;
};

void attend(const PastAttention& task) {
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, task.dtype, "attend_past", [&] {
    at::parallel_for(0, task.rows, 8, [&](int64_t begin, int64_t end) {
      Worker<scalar_t> worker(task);
      for (int64_t row = begin; row < end; ++row) worker(row);
    });
  });
}

}  // namespace
}  // namespace CPU_CAPABILITY

GENIE_CPU_KERNEL(attend_past, attend);

}  // namespace genie::ops
