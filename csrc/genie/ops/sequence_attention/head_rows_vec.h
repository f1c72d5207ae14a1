#pragma once

// Rows of one head: gathered into a dense matrix, normalised, softmaxed. Only for *_vec.cpp files.

#include <ATen/OpMathType.h>
#include <ATen/cpu/vec/vec.h>

#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "genie/ops/cpu/exp2_vec.h"
#include "genie/ops/cpu/micro_gemm.h"
#include "genie/ops/cpu/reduce_vec.h"
#include "genie/ops/cpu/stream_vec.h"
#include "genie/ops/sequence_attention/sequence_attention.h"

namespace genie::ops {
inline namespace CPU_CAPABILITY {

constexpr double qk_norm_eps = 1e-6;

/// A dense matrix in the precision of the computation; rows are padded with zeros to whole panels.
template <class Acc>
struct Scratch {
  std::vector<Acc> storage;
  int64_t stride = 0;

  void resize(int64_t rows, int64_t columns) {
    stride = round_up(columns, panel_width<Acc>());
    storage.resize(static_cast<size_t>(rows * stride));
  }
  /// Rows whose distance is a power of two would share few sets of the first cache, so that walking down a
  /// column of them finds none there: these lie a panel further apart.
  void resize_for_columns(int64_t rows, int64_t columns) { resize(rows, columns + panel_width<Acc>()); }
  Acc* row(int64_t i) { return storage.data() + i * stride; }
};

/// Asks for `bytes` of a tensor's row, which lies where the processor doesn't expect it.
template <bool to_write>
void ask_for(const void* row, int64_t bytes) {
  constexpr int64_t cache_line = 64;
  for (int64_t byte = 0; byte < bytes; byte += cache_line) {
    __builtin_prefetch(static_cast<const char*>(row) + byte, to_write ? 1 : 0, 2);
  }
}

/// Copies a row of `vectors` whole vectors; with `norm` its LayerNorm, of which 1/std is returned.
template <class Acc, int vectors>
C10_ALWAYS_INLINE Acc copy_whole(const Acc* from, Acc* to, bool norm) {
  using Vec = at::vec::Vectorized<Acc>;
  constexpr auto channels = static_cast<Acc>(vectors * Vec::size());
  Vec value[vectors];
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) value[v] = Vec::loadu(from + v * Vec::size());
  Acc inverse(1);
  if (norm) {
    Vec total(Acc(0)), squares(Acc(0));
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) total = total + value[v];
    const Vec mean(sum_of(total) / channels);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      value[v] = value[v] - mean;
      squares = at::vec::fmadd(value[v], value[v], squares);
    }
    inverse = Acc(1) / std::sqrt(sum_of(squares) / channels + static_cast<Acc>(qk_norm_eps));
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) value[v] = value[v] * Vec(inverse);
  }
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) value[v].store(to + v * Vec::size());
  return inverse;
}

/// LayerNorm of a row in place; returns 1/std. The zeros of the padding stay.
template <class Acc>
Acc normalize_row(Acc* row, int64_t channels) {
  using Vec = at::vec::Vectorized<Acc>;
  Vec total(Acc(0));
  for (int64_t c = 0; c < channels; c += Vec::size()) total = total + Vec::loadu(row + c);
  const Acc mean = sum_of(total) / static_cast<Acc>(channels);
  Vec squares(Acc(0));
  int64_t c = 0;
  for (; c + Vec::size() <= channels; c += Vec::size()) {
    const Vec value = Vec::loadu(row + c) - Vec(mean);
    value.store(row + c);
    squares = at::vec::fmadd(value, value, squares);
  }
  if (c < channels) {
    for (int64_t rest = c; rest < channels; ++rest) row[rest] -= mean;
    const Vec value = Vec::loadu(row + c);
    squares = at::vec::fmadd(value, value, squares);
  }
  const Acc variance = sum_of(squares) / static_cast<Acc>(channels);
  const Acc inverse = Acc(1) / std::sqrt(variance + static_cast<Acc>(qk_norm_eps));
  for (c = 0; c < channels; c += Vec::size()) (Vec::loadu(row + c) * Vec(inverse)).store(row + c);
  return inverse;
}

/// Some heads of a tensor's rows, as dense matrices: that of the h-th head begins at row h * count.
struct HeadBlock {
  int64_t first_head;
  int64_t heads;
  const int64_t* rows;
  int64_t count;
  int64_t channels;
};

/// With `inverse_std` each row is normalised, and 1/std of each returned there.
template <class T, class Acc>
void gather(HeadRows<const void> source, const HeadBlock& block, Scratch<Acc>& out,
            std::vector<Acc>* inverse_std = nullptr) {
  using Vec = at::vec::Vectorized<Acc>;
  const int64_t channels = block.channels;
  const T* base = static_cast<const T*>(source.data) + block.first_head * source.head_stride;
  out.resize(block.heads * block.count, channels);
  if (inverse_std) inverse_std->resize(static_cast<size_t>(block.heads * block.count));
  constexpr int64_t ahead = 12;
  const int64_t bytes = block.heads * channels * static_cast<int64_t>(sizeof(T));
  const auto copy_rows = [&](const auto& copy) {
    for (int64_t i = 0; i < block.count; ++i) {
      const T* from = base + block.rows[i] * source.row_stride;
      if (i + ahead < block.count) ask_for<false>(base + block.rows[i + ahead] * source.row_stride, bytes);
      for (int64_t h = 0; h < block.heads; ++h, from += source.head_stride) {
        const int64_t row = h * block.count + i;
        const Acc inverse = copy(from, out.row(row));
        if (inverse_std) (*inverse_std)[static_cast<size_t>(row)] = inverse;
      }
    }
  };
  const bool norm = inverse_std != nullptr;
  const auto convert = [channels, stride = out.stride](const T* from, Acc* to) {
    for (int64_t c = 0; c < channels; ++c) to[c] = static_cast<Acc>(from[c]);
    for (int64_t c = channels; c < stride; ++c) to[c] = Acc(0);
  };
  const auto copy_vectors = [&]<int vectors>(std::integral_constant<int, vectors>) {
    copy_rows([&](const T* from, Acc* to) {
      if constexpr (std::is_same_v<T, Acc>) {
        return copy_whole<Acc, vectors>(from, to, norm);
      } else {
        convert(from, to);
        return norm ? copy_whole<Acc, vectors>(to, to, true) : Acc(1);
      }
    });
  };
  switch (channels == out.stride ? channels / Vec::size() : 0) {
    case 2:
      return copy_vectors(std::integral_constant<int, 2>());
    case 4:
      return copy_vectors(std::integral_constant<int, 4>());
    case 8:
      return copy_vectors(std::integral_constant<int, 8>());
  }
  copy_rows([&](const T* from, Acc* to) {
    convert(from, to);
    return norm ? normalize_row(to, channels) : Acc(1);
  });
}

/// Whether all vectors of a tensor's rows lie at multiples of their size.
template <class T>
bool rows_are_aligned(HeadRows<void> target, int64_t channels) {
  using Vec = at::vec::Vectorized<T>;
  return reinterpret_cast<uintptr_t>(target.data) % (Vec::size() * sizeof(T)) == 0 &&
         target.row_stride % Vec::size() == 0 && target.head_stride % Vec::size() == 0 &&
         channels % Vec::size() == 0;
}

/// Writes the matrices' rows, which begin at `top`, to the tensor, each times factor[row of `values`] where
/// factors are given. `past_caches` is for aligned rows of T = float (see stream_vec.h).
template <class T, class Acc>
void scatter(Scratch<Acc>& values, int64_t top, const Acc* factor, HeadRows<void> target,
             const HeadBlock& block, bool past_caches = false) {
  using Vec = at::vec::Vectorized<Acc>;
  const int64_t channels = block.channels;
  constexpr int64_t ahead = 8;
  const int64_t bytes = block.heads * channels * static_cast<int64_t>(sizeof(T));
  T* base = static_cast<T*>(target.data) + block.first_head * target.head_stride;
  for (int64_t i = 0; i < block.count; ++i) {
    T* to = base + block.rows[i] * target.row_stride;
    if (!past_caches && i + ahead < block.count)
      ask_for<true>(base + block.rows[i + ahead] * target.row_stride, bytes);
    for (int64_t h = 0; h < block.heads; ++h, to += target.head_stride) {
      const int64_t row = top + h * block.count + i;
      const Acc* from = values.row(row);
      const Acc by = factor ? factor[row] : Acc(1);
      int64_t c = 0;
      if constexpr (std::is_same_v<T, Acc>) {
        for (; c + Vec::size() <= channels; c += Vec::size()) {
          const Vec value = Vec::loadu(from + c) * Vec(by);
          past_caches ? stream(value, to + c) : value.store(to + c);
        }
      }
      for (; c < channels; ++c) to[c] = static_cast<T>(from[c] * by);
    }
  }
  if (past_caches) end_stream();
}

/// Turns the gradient by the normalised rows into the gradient by the rows, in place. The padding of both is
/// zero; that of the result isn't.
template <class Acc>
void normalize_backward(Scratch<Acc>& normalized, const std::vector<Acc>& inverse_std, int64_t count,
                        int64_t channels, Scratch<Acc>& grad) {
  using Vec = at::vec::Vectorized<Acc>;
  for (int64_t i = 0; i < count; ++i) {
    const Acc* y = normalized.row(i);
    Acc* g = grad.row(i);
    Vec total(Acc(0)), along(Acc(0));
    for (int64_t c = 0; c < channels; c += Vec::size()) {
      const Vec value = Vec::loadu(g + c);
      total = total + value;
      along = at::vec::fmadd(value, Vec::loadu(y + c), along);
    }
    const Vec mean(sum_of(total) / static_cast<Acc>(channels));
    const Vec projection(sum_of(along) / static_cast<Acc>(channels));
    const Vec inverse(inverse_std[static_cast<size_t>(i)]);
    for (int64_t c = 0; c < channels; c += Vec::size()) {
      (inverse * (Vec::loadu(g + c) - mean - Vec::loadu(y + c) * projection)).store(g + c);
    }
  }
}

/// exp(scale score - shift) of scores, with the shift taken from them before they are scaled: the largest
/// then gives exactly 1 however large it is. (Of a rounded product, a fused multiply-add would leave the
/// rounding, which has no bound.)
template <class Acc>
struct ScaledExponential {
  using Vec = at::vec::Vectorized<Acc>;

  explicit ScaledExponential(Acc scale)
      : sign(scale < 0 ? Acc(-1) : Acc(1)), factor(std::abs(scale) * static_cast<Acc>(log2_of_e)) {}
  /// What the shift is the largest of.
  Vec rank(Vec score) const { return score * sign; }
  Vec operator()(Vec score, Vec shift) const {
    return exp2_to_127(at::vec::fmsub(score, sign, shift) * factor);
  }

  Vec sign, factor;
};

/// row[j] = exp(scale row[j] - shift) for the first `visible` scores and 0 for the others up to `padded` (a
/// whole number of vectors). Returns the sum. The shift is the largest, or 0 where the scores are `bounded`,
/// so that their exponentials need none. `meanwhile(j, vector)` sees each vector of exponentials.
template <class Acc>
Acc exponentials(Acc* row, int64_t visible, int64_t padded, Acc scale, bool bounded, const auto& meanwhile) {
  using Vec = at::vec::Vectorized<Acc>;
  const ScaledExponential<Acc> exponential(scale);
  const int64_t whole = visible / Vec::size() * Vec::size();
  const int64_t covered = round_up(visible, Vec::size());
  const Vec last = Vec::loadu(row + covered - Vec::size());
  const Vec is_visible = Vec::arange(Acc(0), Acc(1)) < Vec(static_cast<Acc>(visible - whole));
  Vec shift(Acc(0));
  if (!bounded) {
    Vec largest(-std::numeric_limits<Acc>::infinity());
    if (covered > whole) largest = Vec::blendv(largest, exponential.rank(last), is_visible);
    for (int64_t j = 0; j < whole; j += Vec::size()) {
      largest = at::vec::maximum(largest, exponential.rank(Vec::loadu(row + j)));
    }
    shift = Vec(largest_of(largest));
  }
  Vec total(Acc(0));
  const auto keep = [&](int64_t j, Vec value) {
    value.store(row + j);
    meanwhile(j, value);
    total = total + value;
  };
  for (int64_t j = 0; j < whole; j += Vec::size()) keep(j, exponential(Vec::loadu(row + j), shift));
  if (covered > whole) keep(whole, Vec::blendv(Vec(Acc(0)), exponential(last, shift), is_visible));
  for (int64_t j = covered; j < padded; j += Vec::size()) Vec(Acc(0)).store(row + j);
  return sum_of(total);
}

template <class Acc>
Acc exponentials(Acc* row, int64_t visible, int64_t padded, Acc scale, bool bounded) {
  return exponentials(row, visible, padded, scale, bounded, [](auto...) {});
}

/// Whether scale q k cannot grow so large that exponentials need a shift: normalised rows have at most the
/// length sqrt(channels).
inline bool scores_are_bounded(bool qk_norm, double scale, int64_t channels) {
  constexpr double harmless = 20;
  return qk_norm && std::abs(scale) * static_cast<double>(channels) <= harmless;
}

}  // namespace CPU_CAPABILITY
}  // namespace genie::ops
