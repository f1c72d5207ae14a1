#pragma once

// Rows of one head: gathered into a dense matrix, normalised, softmaxed. Only for *_vec.cpp files.

#include <ATen/OpMathType.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "genie/ops/cpu/micro_gemm.h"
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
  Acc* row(int64_t i) { return storage.data() + i * stride; }
};

template <class T, class Acc>
void gather(HeadRows<const void> source, int64_t head, const int64_t* rows, int64_t count, int64_t channels,
            Scratch<Acc>& out) {
  using Vec = at::vec::Vectorized<Acc>;
  const T* base = static_cast<const T*>(source.data) + head * source.head_stride;
  out.resize(count, channels);
  for (int64_t i = 0; i < count; ++i) {
    const T* from = base + rows[i] * source.row_stride;
    Acc* to = out.row(i);
    int64_t c = 0;
    if constexpr (std::is_same_v<T, Acc>) {
      for (; c + Vec::size() <= channels; c += Vec::size()) Vec::loadu(from + c).store(to + c);
    }
    for (; c < channels; ++c) to[c] = static_cast<Acc>(from[c]);
    for (; c < out.stride; ++c) to[c] = Acc(0);
  }
}

/// Writes row i of `values`, times factor[i] where factors are given, to the tensor's row.
template <class T, class Acc>
void scatter(Scratch<Acc>& values, const Acc* factor, HeadRows<void> target, int64_t head,
             const int64_t* rows, int64_t count, int64_t channels) {
  using Vec = at::vec::Vectorized<Acc>;
  T* base = static_cast<T*>(target.data) + head * target.head_stride;
  for (int64_t i = 0; i < count; ++i) {
    const Acc* from = values.row(i);
    T* to = base + rows[i] * target.row_stride;
    const Acc by = factor ? factor[i] : Acc(1);
    int64_t c = 0;
    if constexpr (std::is_same_v<T, Acc>) {
      for (; c + Vec::size() <= channels; c += Vec::size()) {
        (Vec::loadu(from + c) * Vec(by)).store(to + c);
      }
    }
    for (; c < channels; ++c) to[c] = static_cast<T>(from[c] * by);
  }
}

template <class Acc>
Acc sum_of(at::vec::Vectorized<Acc> vector) {
  return at::vec::vec_reduce_all<Acc>([](auto a, auto b) { return a + b; }, vector);
}

/// LayerNorm of each row in place; returns 1/std of each row in `inverse_std`. The zeros of the padding stay.
template <class Acc>
void normalize(Scratch<Acc>& x, int64_t count, int64_t channels, std::vector<Acc>& inverse_std) {
  using Vec = at::vec::Vectorized<Acc>;
  inverse_std.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    Acc* row = x.row(i);
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
    if (c < channels) {  // the padding stays zero
      for (int64_t rest = c; rest < channels; ++rest) row[rest] -= mean;
      const Vec value = Vec::loadu(row + c);
      squares = at::vec::fmadd(value, value, squares);
    }
    const Acc variance = sum_of(squares) / static_cast<Acc>(channels);
    const Acc inverse = Acc(1) / std::sqrt(variance + static_cast<Acc>(qk_norm_eps));
    for (c = 0; c < channels; c += Vec::size()) (Vec::loadu(row + c) * Vec(inverse)).store(row + c);
    inverse_std[static_cast<size_t>(i)] = inverse;
  }
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

/// row[j] = exp(scale row[j] - max) for the first `visible` scores and 0 for the others up to `padded` (a
/// whole number of vectors). Returns the sum.
template <class Acc>
Acc exponentials(Acc* row, int64_t visible, int64_t padded, Acc scale) {
  using Vec = at::vec::Vectorized<Acc>;
  constexpr Acc lowest = -std::numeric_limits<Acc>::infinity();
  const int64_t covered = round_up(visible, Vec::size());
  int64_t j = 0;
  Vec largest(lowest);
  for (; j + Vec::size() <= visible; j += Vec::size()) {
    const Vec scaled = Vec::loadu(row + j) * Vec(scale);
    scaled.store(row + j);
    largest = at::vec::maximum(largest, scaled);
  }
  for (; j < covered; ++j) row[j] = j < visible ? row[j] * scale : lowest;
  if (covered > visible) largest = at::vec::maximum(largest, Vec::loadu(row + covered - Vec::size()));
  const Acc top =
      at::vec::vec_reduce_all<Acc>([](auto a, auto b) { return at::vec::maximum(a, b); }, largest);
  Vec total(Acc(0));
  for (j = 0; j < covered; j += Vec::size()) {
    const Vec value = (Vec::loadu(row + j) - Vec(top)).exp_u20();
    value.store(row + j);
    total = total + value;
  }
  std::fill(row + covered, row + padded, Acc(0));
  return sum_of(total);
}

}  // namespace CPU_CAPABILITY
}  // namespace genie::ops
