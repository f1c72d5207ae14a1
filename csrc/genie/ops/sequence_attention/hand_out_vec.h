#pragma once

// Which heads of which sequences a thread does together, in what order, and what it asks of the memory
// meanwhile. Only for *_vec.cpp files.

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <utility>
#include <vector>

#include "genie/ops/sequence_attention/head_rows_vec.h"

namespace genie::ops {
inline namespace CPU_CAPABILITY {

/// The sequences, longest first; empty where all are of one length.
inline std::vector<int64_t> longest_first(const SequenceAttention& task) {
  const auto length = [&](int64_t i) { return task.offsets[i + 1] - task.offsets[i]; };
  int64_t first = 0;
  while (first < task.count && length(first) == length(0)) ++first;
  if (first == task.count) return {};
  std::vector<int64_t> order(static_cast<size_t>(task.count));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return length(a) > length(b); });
  return order;
}

/// How many heads of a sequence are done together. A short sequence's rows may lie far apart; what is read
/// and written of them at a time should be long, as long as it all stays in the second-level cache.
template <class Acc>
int64_t heads_together(const SequenceAttention& task, int64_t length, int64_t matrices) {
  constexpr int64_t cache = 192 * 1024, items_per_thread = 4;
  const int64_t head = matrices * length * round_up(task.head_dim, panel_width<Acc>()) * sizeof(Acc);
  const int64_t most = task.count * task.heads / (items_per_thread * at::get_num_threads());
  return std::clamp<int64_t>(std::min(cache / std::max<int64_t>(head, 1), most), 1, task.heads);
}

inline HeadBlock head_block(const SequenceAttention& task, int64_t sequence, int64_t first_head,
                            int64_t heads) {
  const int64_t first = task.offsets[sequence];
  return {first_head, heads, task.rows + first, task.offsets[sequence + 1] - first, task.head_dim};
}

inline const int64_t* limits_of(const SequenceAttention& task, int64_t sequence) {
  return task.limits ? task.limits + task.offsets[sequence] : nullptr;
}

/// Asks for the rows that are needed next, some at a time between the products of the present ones: they lie
/// where the processor does not expect them. Not where there are many, which would push the present ones out.
template <class T>
class RowsAhead {
 public:
  explicit RowsAhead(std::vector<HeadRows<const void>> sources) : sources_(std::move(sources)) {}

  void expect(const HeadBlock* next) {
    constexpr int64_t most = 64 * 1024;
    next_ = next && next->count * row_bytes(*next) * std::ssize(sources_) <= most ? *next : HeadBlock{};
    asked_ = 0;
  }

  /// `done` of `all` parts of the present work are done.
  void fetch(int64_t done, int64_t all) {
    const auto sources = std::ssize(sources_);
    const int64_t until = next_.count * sources * done / all, bytes = row_bytes(next_);
    for (; asked_ < until; ++asked_) {
      const auto& source = sources_[static_cast<size_t>(asked_ % sources)];
      ask_for<false>(static_cast<const T*>(source.data) + next_.first_head * source.head_stride +
                         next_.rows[asked_ / sources] * source.row_stride,
                     bytes);
    }
  }

 private:
  static int64_t row_bytes(const HeadBlock& block) {
    return block.heads * block.channels * static_cast<int64_t>(sizeof(T));
  }

  std::vector<HeadRows<const void>> sources_;
  HeadBlock next_{};
  int64_t asked_ = 0;  // rows, of one source after another
};

/// Calls body(sequence, heads, those that come next) for all of them in parallel. Heads of a sequence follow
/// each other: they share cache lines. Sequences of different lengths are handed out one by one, the longest
/// first, so that no thread waits long for another at the end. `Body` is made anew by `make_body` for each
/// thread.
template <class Body>
void for_each_head(const SequenceAttention& task, const auto& make_body) {
  if (task.count * task.heads == 0) return;
  const std::vector<int64_t> order = longest_first(task);
  const bool even = order.empty();
  const int64_t heads =
      even ? heads_together<typename Body::Acc>(task, task.offsets[1] - task.offsets[0], Body::matrices) : 1;
  const int64_t parts = (task.heads + heads - 1) / heads, items = task.count * parts;
  const auto sequence = [&](int64_t item) {
    return even ? item / parts : order[static_cast<size_t>(item / parts)];
  };
  const auto block = [&](int64_t item) {
    const int64_t first = item % parts * heads;
    return head_block(task, sequence(item), first, std::min(heads, task.heads - first));
  };
  const auto run = [&](const auto& next_item, int64_t end) {
    Body body = make_body();
    for (int64_t item = next_item(), next; item < end; item = next) {
      next = next_item();
      const HeadBlock now = block(item), then = next < end ? block(next) : HeadBlock{};
      body(now, limits_of(task, sequence(item)), next < end ? &then : nullptr);
    }
  };
  if (even) {
    at::parallel_for(0, items, 1, [&](int64_t begin, int64_t end) { run([&] { return begin++; }, end); });
  } else {
    std::atomic<int64_t> shared = 0;
    at::parallel_for(0, std::min<int64_t>(at::get_num_threads(), items), 1,
                     [&](int64_t, int64_t) { run([&] { return shared++; }, items); });
  }
}

}  // namespace CPU_CAPABILITY
}  // namespace genie::ops
