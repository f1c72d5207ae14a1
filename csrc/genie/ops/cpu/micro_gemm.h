#pragma once

// Products of small matrices that fit a core's caches: the inner loops of the fused kernels, where a call of
// a BLAS would have to write its result to memory first. Only for *_vec.cpp files.

#include <ATen/cpu/vec/vec.h>
#include <c10/macros/Macros.h>

#include <algorithm>
#include <cstdint>

namespace genie::ops {
inline namespace CPU_CAPABILITY {

/// The right-hand factor B (depth x columns) is stored in panels of this many columns; a panel holds its rows
/// one after another, so that the inner loop reads memory in order. Columns are padded with zeros.
template <class T>
constexpr int64_t panel_width() {
  return 2 * at::vec::Vectorized<T>::size();
}

constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

template <class T>
int64_t panels_size(int64_t depth, int64_t columns) {
  return depth * round_up(columns, panel_width<T>());
}

/// Panels of B[k][n] = source[k * stride + n]. Rows of `source` must be readable (and zero) up to a whole
/// panel.
template <class T>
void pack(const T* source, int64_t stride, int64_t depth, int64_t columns, T* panels) {
  using Vec = at::vec::Vectorized<T>;
  for (int64_t n = 0; n < columns; n += panel_width<T>()) {
    for (int64_t k = 0; k < depth; ++k, panels += panel_width<T>()) {
      const T* row = source + k * stride + n;
      Vec::loadu(row).store(panels);
      Vec::loadu(row + Vec::size()).store(panels + Vec::size());
    }
  }
}

/// Panels of B[k][n] = source[n * stride + k]. Rows of `source` must be readable up to a multiple of the
/// vector size.
template <class T>
void pack_transposed(const T* source, int64_t stride, int64_t depth, int64_t columns, T* panels) {
  constexpr int size = at::vec::Vectorized<T>::size();
  constexpr int64_t width = panel_width<T>();
  T square[size * size];
  for (int64_t first = 0; first < columns; first += width, panels += width * depth) {
    for (int64_t n = 0; n < width; n += size) {
      const int64_t rows = std::clamp<int64_t>(columns - first - n, 0, size);
      const T* block = source + (first + n) * stride;
      if (rows < size) {
        for (int64_t k = 0; k < depth; ++k) {
          for (int64_t r = 0; r < size; ++r)
            panels[k * width + n + r] = r < rows ? block[r * stride + k] : T(0);
        }
        continue;
      }
      int64_t k = 0;
      for (; k + size <= depth; k += size) {
        at::vec::transpose_mxn<T, size, size>(block + k, stride, panels + k * width + n, width);
      }
      if (k < depth) {
        at::vec::transpose_mxn<T, size, size>(block + k, stride, square, size);
        for (int64_t r = 0; k + r < depth; ++r)
          std::copy_n(square + r * size, size, panels + (k + r) * width + n);
      }
    }
  }
}

/// Inlined, since short products call many tiles.
template <class T, int rows, int vectors>
C10_ALWAYS_INLINE void gemm_tile(int64_t depth, const T* a, int64_t a_row, int64_t a_step, const T* panel,
                                 int64_t panel_row, T* c, int64_t c_row, bool accumulate) {
  using Vec = at::vec::Vectorized<T>;
  Vec sum[rows][vectors];
#pragma GCC unroll 8
  for (int m = 0; m < rows; ++m) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      sum[m][v] = accumulate ? Vec::loadu(c + m * c_row + v * Vec::size()) : Vec(T(0));
    }
  }
  for (int64_t k = 0; k < depth; ++k, a += a_step, panel += panel_row) {
    Vec b[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) b[v] = Vec::loadu(panel + v * Vec::size());
#pragma GCC unroll 8
    for (int m = 0; m < rows; ++m) {
      const Vec factor(a[m * a_row]);
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) sum[m][v] = at::vec::fmadd(factor, b[v], sum[m][v]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < rows; ++m) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) sum[m][v].store(c + m * c_row + v * Vec::size());
  }
}

template <class T, int vectors>
inline void gemm_column(int64_t rows, int64_t depth, const T* a, int64_t a_row, int64_t a_step,
                        const T* panel, int64_t panel_row, T* c, int64_t c_row, bool accumulate) {
  constexpr int64_t tile = 6;
  for (; rows >= tile; rows -= tile, a += tile * a_row, c += tile * c_row) {
    gemm_tile<T, tile, vectors>(depth, a, a_row, a_step, panel, panel_row, c, c_row, accumulate);
  }
  switch (rows) {
    case 5:
      return gemm_tile<T, 5, vectors>(depth, a, a_row, a_step, panel, panel_row, c, c_row, accumulate);
    case 4:
      return gemm_tile<T, 4, vectors>(depth, a, a_row, a_step, panel, panel_row, c, c_row, accumulate);
    case 3:
      return gemm_tile<T, 3, vectors>(depth, a, a_row, a_step, panel, panel_row, c, c_row, accumulate);
    case 2:
      return gemm_tile<T, 2, vectors>(depth, a, a_row, a_step, panel, panel_row, c, c_row, accumulate);
    case 1:
      return gemm_tile<T, 1, vectors>(depth, a, a_row, a_step, panel, panel_row, c, c_row, accumulate);
  }
}

/// The left-hand factor: A[m][k] = data[m * row + k * step].
template <class T>
struct LeftFactor {
  const T* data;
  int64_t row;
  int64_t step;
};

/// The right-hand factor: B[k][n] = data[n / width * panel + k * row + n % width], width = panel_width<T>().
template <class T>
struct RightFactor {
  const T* data;
  int64_t row;
  int64_t panel;
};

/// Packed by pack() or pack_transposed() with `depth` rows.
template <class T>
RightFactor<T> in_panels(const T* panels, int64_t depth) {
  return {panels, panel_width<T>(), panel_width<T>() * depth};
}

/// As it lies in memory. Rows must be readable up to a whole panel.
template <class T>
RightFactor<T> in_rows(const T* data, int64_t stride) {
  return {data, stride, panel_width<T>()};
}

/// C = A B, or C += A B. Rows of C are written up to a whole vector beyond `columns`.
template <class T>
void gemm(int64_t rows, int64_t columns, int64_t depth, LeftFactor<T> a, RightFactor<T> b, T* c,
          int64_t c_row, bool accumulate = false) {
  constexpr int64_t width = panel_width<T>();
  for (int64_t n = 0; n < columns; n += width, b.data += b.panel) {
    if (columns - n > width / 2) {
      gemm_column<T, 2>(rows, depth, a.data, a.row, a.step, b.data, b.row, c + n, c_row, accumulate);
    } else {
      gemm_column<T, 1>(rows, depth, a.data, a.row, a.step, b.data, b.row, c + n, c_row, accumulate);
    }
  }
}

}  // namespace CPU_CAPABILITY
}  // namespace genie::ops
