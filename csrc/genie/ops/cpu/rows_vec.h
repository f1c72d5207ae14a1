#pragma once

// Rows of floats, a vector at a time. Only for *_vec.cpp files.

#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace genie::ops {
inline namespace CPU_CAPABILITY {

constexpr int64_t row_grain = 16384;  // elements that are worth a thread

/// Calls body(row) for all rows, in parallel.
template <class Body>
void for_rows(int64_t rows, int64_t width, const Body& body) {
  at::parallel_for(0, rows, std::max<int64_t>(1, row_grain / width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

/// Calls body(first element, lanes) for each vector of a row.
template <class Body>
void for_vectors(int64_t width, const Body& body) {
  constexpr int size = at::vec::Vectorized<float>::size();
  int64_t c = 0;
  for (; c + size <= width; c += size) body(c, size);
  if (c < width) body(c, static_cast<int>(width - c));
}

/// The first `lanes` of a vector from memory, `beyond` in the others.
inline at::vec::Vectorized<float> load(const float* from, int lanes, float beyond = 0) {
  using Vec = at::vec::Vectorized<float>;
  if (lanes == Vec::size()) return Vec::loadu(from);
  return Vec::set(Vec(beyond), Vec::loadu(from, lanes), lanes);
}

/// Adds to `sums` (width) what body(first row, end, sums) adds up over rows, done in parallel. Sums of sums
/// of few rows each: float32's rounding grows with the number of terms. They don't depend on how many threads
/// there are.
template <class Body>
void add_row_sums(int64_t rows, int64_t width, float* sums, const Body& body) {
  constexpr int64_t few = 64;
  const int64_t groups = (rows + few - 1) / few;
  std::vector<float> partial(static_cast<size_t>(groups * width));
  for_rows(groups, few * width, [&](int64_t group) {
    body(group * few, std::min(rows, (group + 1) * few), partial.data() + group * width);
  });
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t c = 0; c < width; ++c) sums[c] += partial[static_cast<size_t>(group * width + c)];
  }
}

}  // namespace CPU_CAPABILITY
}  // namespace genie::ops
