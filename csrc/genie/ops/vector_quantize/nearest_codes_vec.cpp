#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/functional.h>

#include <cmath>
#include <limits>
#include <vector>

#include "genie/ops/cpu/micro_gemm.h"
#include "genie/ops/vector_quantize/nearest_codes.h"

namespace genie::ops {
inline namespace CPU_CAPABILITY {
namespace {

constexpr int64_t block_vectors = 48;  // vectors scored together
constexpr int64_t block_codes = 256;   // codes scored together; their scores stay in the first-level cache

/// The codebook in panels, ready for products, with what is known about each code.
template <class T>
class Codebook {
 public:
  using Acc = at::opmath_type<T>;

  explicit Codebook(const NearestCodesTask& task) : channels_(task.channels), codes_(task.codes) {
    constexpr int64_t width = panel_width<Acc>();
    const T* source = static_cast<const T*>(task.codebook);
    const int64_t stride = round_up(channels_, width);
    std::vector<Acc> rows(static_cast<size_t>(width * stride));
    panels_.resize(static_cast<size_t>(panels_size<Acc>(channels_, codes_)));
    half_norm_.assign(static_cast<size_t>(round_up(codes_, width)), std::numeric_limits<Acc>::infinity());
    for (int64_t first = 0; first < codes_; first += width) {
      const int64_t count = std::min(width, codes_ - first);
      std::fill(rows.begin(), rows.end(), Acc(0));
      for (int64_t r = 0; r < count; ++r) {
        Acc* row = rows.data() + r * stride;
        Acc norm(0);
        for (int64_t c = 0; c < channels_; ++c) {
          row[c] = static_cast<Acc>(source[(first + r) * channels_ + c]);
          norm += row[c] * row[c];
        }
        if (std::isfinite(norm)) {
          half_norm_[static_cast<size_t>(first + r)] = norm / 2;
          largest_norm_ = std::max(largest_norm_, norm);
        } else {
          std::fill(row, row + channels_, Acc(0));  // leaves the score infinite
        }
      }
      pack_transposed(rows.data(), stride, channels_, count, panels_.data() + first * channels_);
    }
  }

  const Acc* panels(int64_t code) const { return panels_.data() + code * channels_; }
  const Acc* half_norm(int64_t code) const { return half_norm_.data() + code; }

  /// Bound on the rounding error of the difference of two scores of a vector with this squared norm.
  Acc error_bound(Acc norm) const {
    const auto terms = static_cast<Acc>(channels_ + 4);
    return 4 * std::numeric_limits<Acc>::epsilon() * terms *
           (std::sqrt(norm * largest_norm_) + largest_norm_);
  }

 private:
  int64_t channels_, codes_;
  std::vector<Acc> panels_, half_norm_;
  Acc largest_norm_ = 0;
};

/// The codes of one vector whose score may be the least, given the rounding error.
template <class Acc>
struct Candidates {
  Acc best = std::numeric_limits<Acc>::infinity();
  std::vector<std::pair<Acc, int64_t>> list;

  void reset() {
    best = std::numeric_limits<Acc>::infinity();
    list.clear();
  }

  /// Takes in the scores half_norm - product of codes first .. first + count - 1.
  void scan(Acc* products, const Acc* half_norm, int64_t first, int64_t count, Acc error) {
    using Vec = at::vec::Vectorized<Acc>;
    Vec least(std::numeric_limits<Acc>::infinity());
    for (int64_t n = 0; n < count; n += Vec::size()) {
      const Vec score = Vec::loadu(half_norm + n) - Vec::loadu(products + n);
      score.store(products + n);
      least = at::vec::minimum(least, score);
    }
    best = std::min(
        best, at::vec::vec_reduce_all<Acc>([](auto a, auto b) { return at::vec::minimum(a, b); }, least));
    const Acc limit = best + error;
    for (int64_t n = 0; n < count; n += Vec::size()) {
      bool any = false;
      for (int64_t i = 0; i < Vec::size(); ++i) any |= products[n + i] <= limit;
      if (!any) continue;
      for (int64_t i = n; i < std::min<int64_t>(n + Vec::size(), count); ++i) {
        if (products[i] <= limit) list.emplace_back(products[i], first + i);
      }
    }
  }
};

template <class T>
int64_t choose(const NearestCodesTask& task, const T* x, const Candidates<at::opmath_type<T>>& candidates,
               at::opmath_type<T> error) {
  const T* codebook = static_cast<const T*>(task.codebook);
  int64_t chosen = 0, close = 0;
  for (const auto& [score, code] : candidates.list) {
    if (score <= candidates.best + error && close++ == 0) chosen = code;
  }
  if (close <= 1) return chosen;
  double least = std::numeric_limits<double>::infinity();
  for (const auto& [score, code] : candidates.list) {
    if (!(score <= candidates.best + error)) continue;
    double distance = 0;
    for (int64_t c = 0; c < task.channels; ++c) {
      const double difference =
          static_cast<double>(x[c]) - static_cast<double>(codebook[code * task.channels + c]);
      distance += difference * difference;
    }
    if (distance < least) {
      least = distance;
      chosen = code;
    }
  }
  return chosen;
}

template <class T>
void search(const NearestCodesTask& task) {
  using Acc = at::opmath_type<T>;
  const Codebook<T> codebook(task);
  const int64_t blocks = (task.count + block_vectors - 1) / block_vectors;
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<Acc> x(static_cast<size_t>(block_vectors * task.channels));
    std::vector<Acc> products(static_cast<size_t>(block_vectors * block_codes));
    std::vector<Acc> error(block_vectors);
    std::vector<Candidates<Acc>> candidates(block_vectors);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * block_vectors, count = std::min(block_vectors, task.count - first);
      const T* source = static_cast<const T*>(task.x) + first * task.channels;
      for (int64_t i = 0; i < count; ++i) {
        Acc norm(0);
        Acc* row = x.data() + i * task.channels;
        for (int64_t c = 0; c < task.channels; ++c) {
          row[c] = static_cast<Acc>(source[i * task.channels + c]);
          norm += row[c] * row[c];
        }
        candidates[static_cast<size_t>(i)].reset();
        error[static_cast<size_t>(i)] = codebook.error_bound(norm);
        if (!std::isfinite(norm)) std::fill(row, row + task.channels, std::numeric_limits<Acc>::quiet_NaN());
      }
      for (int64_t code = 0; code < task.codes; code += block_codes) {
        const int64_t width = std::min(block_codes, task.codes - code);
        gemm<Acc>(count, width, task.channels, {x.data(), task.channels, 1},
                  in_panels(codebook.panels(code), task.channels), products.data(), block_codes);
        for (int64_t i = 0; i < count; ++i) {
          candidates[static_cast<size_t>(i)].scan(products.data() + i * block_codes, codebook.half_norm(code),
                                                  code, width, error[static_cast<size_t>(i)]);
        }
      }
      for (int64_t i = 0; i < count; ++i) {
        const int64_t code = choose<T>(task, source + i * task.channels, candidates[static_cast<size_t>(i)],
                                       error[static_cast<size_t>(i)]);
        task.indices[first + i] = code;
        std::copy_n(static_cast<const T*>(task.codebook) + code * task.channels, task.channels,
                    static_cast<T*>(task.quantized) + (first + i) * task.channels);
      }
    }
  });
}

void nearest_codes_cpu(const NearestCodesTask& task) {
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, task.dtype, "vector_quantize",
                                 [&] { search<scalar_t>(task); });
}

}  // namespace
}  // namespace CPU_CAPABILITY

GENIE_CPU_KERNEL(nearest_codes, nearest_codes_cpu);

}  // namespace genie::ops
