#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/functional.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "genie/ops/maskgit/draw_codes.h"

namespace genie::ops {
inline namespace CPU_CAPABILITY {
namespace {

/// Draws for one row after another; the buffers hold one row.
template <class T>
class Drawer {
 public:
  using Acc = at::opmath_type<T>;
  using Vec = at::vec::Vectorized<Acc>;

  explicit Drawer(const DrawCodesTask& task) : task_(task) {
    const auto padded = static_cast<size_t>((task.codes + Vec::size() - 1) / Vec::size() * Vec::size());
    logits_.assign(padded, -std::numeric_limits<Acc>::infinity());
    weights_.resize(padded);
  }

  void draw(int64_t row) {
    const T* source = static_cast<const T*>(task_.logits) + row * task_.row_stride;
    for (int64_t k = 0; k < task_.codes; ++k) logits_[static_cast<size_t>(k)] = static_cast<Acc>(source[k]);
    Vec largest(-std::numeric_limits<Acc>::infinity());
    for (size_t k = 0; k < logits_.size(); k += Vec::size()) {
      largest = at::vec::maximum(largest, Vec::loadu(logits_.data() + k));
    }
    top_ = at::vec::vec_reduce_all<Acc>([](auto a, auto b) { return at::vec::maximum(a, b); }, largest);
    if (!std::isfinite(top_)) {
      task_.drawn[row] = -1;
      return;
    }
    const double total = exponentials(1);
    const int64_t code =
        static_cast<Acc>(task_.temperature) == 0 ? most_probable() : sample(task_.noise[row], total);
    task_.drawn[row] = code;
    task_.log_probability[row] =
        static_cast<double>(logits_[static_cast<size_t>(code)]) - static_cast<double>(top_) - std::log(total);
  }

 private:
  /// Fills weights_ with exp((logit - largest) / temperature) and returns their sum.
  double exponentials(double temperature) {
    const Vec top(top_), divisor(static_cast<Acc>(temperature));
    double total = 0;
    for (size_t k = 0; k < logits_.size(); k += Vec::size()) {
      const Vec weight = ((Vec::loadu(logits_.data() + k) - top) / divisor).exp();
      weight.store(weights_.data() + k);
      total +=
          static_cast<double>(at::vec::vec_reduce_all<Acc>([](auto a, auto b) { return a + b; }, weight));
    }
    return total;
  }

  int64_t most_probable() const { return std::find(logits_.begin(), logits_.end(), top_) - logits_.begin(); }

  int64_t sample(double noise, double total) {
    if (task_.temperature != 1) total = exponentials(task_.temperature);
    if (task_.top_k > 0 && task_.top_k < task_.codes) total = keep_top_k();
    if (task_.top_p < 1) total = keep_top_p(total);
    double cumulative = 0;
    int64_t last = 0;
    for (int64_t k = 0; k < task_.codes; ++k) {
      const auto weight = static_cast<double>(weights_[static_cast<size_t>(k)]);
      if (weight == 0) continue;
      last = k;
      cumulative += weight;
      if (cumulative > noise * total) return k;
    }
    return last;
  }

  /// Whether code a comes before b among the most probable ones: of equal ones the first.
  auto before() const {
    return [this](int64_t a, int64_t b) {
      const Acc first = logits_[static_cast<size_t>(a)], second = logits_[static_cast<size_t>(b)];
      return first != second ? first > second : a < b;
    };
  }

  void list_codes() {
    order_.clear();
    for (int64_t k = 0; k < task_.codes; ++k) {
      if (weights_[static_cast<size_t>(k)] > 0) order_.push_back(k);
    }
  }

  /// The k most probable codes stay. Returns their weight.
  double keep_top_k() {
    list_codes();
    const auto count = std::min(static_cast<size_t>(task_.top_k), order_.size());
    const auto end = order_.begin() + static_cast<std::ptrdiff_t>(count);
    std::nth_element(order_.begin(), end, order_.end(), before());
    for (auto code = end; code != order_.end(); ++code) weights_[static_cast<size_t>(*code)] = 0;
    return std::accumulate(weights_.begin(), weights_.begin() + task_.codes, 0.0);
  }

  /// The most probable codes stay that together hold at least the share top_p, the one that completes it
  /// included. Returns their weight.
  double keep_top_p(double total) {
    list_codes();
    const auto after = [less = before()](int64_t a, int64_t b) { return less(b, a); };
    std::make_heap(order_.begin(), order_.end(), after);
    double kept = 0;
    while (!order_.empty() && kept < task_.top_p * total) {
      std::pop_heap(order_.begin(), order_.end(), after);
      kept += static_cast<double>(weights_[static_cast<size_t>(order_.back())]);
      order_.pop_back();
    }
    for (const int64_t code : order_) weights_[static_cast<size_t>(code)] = 0;
    return kept;
  }

  const DrawCodesTask& task_;
  std::vector<Acc> logits_, weights_;
  std::vector<int64_t> order_;
  Acc top_ = 0;
};

void draw_codes_cpu(const DrawCodesTask& task) {
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, task.dtype, "maskgit_step", [&] {
    at::parallel_for(0, task.count, 4, [&](int64_t begin, int64_t end) {
      Drawer<scalar_t> drawer(task);
      for (int64_t i = begin; i < end; ++i) drawer.draw(task.rows[i]);
    });
  });
}

}  // namespace
}  // namespace CPU_CAPABILITY

GENIE_CPU_KERNEL(draw_codes, draw_codes_cpu);

}  // namespace genie::ops
