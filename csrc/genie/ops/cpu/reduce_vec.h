#pragma once

// Sums and maxima within a vector. Only for *_vec.cpp files.

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

namespace genie::ops {
inline namespace CPU_CAPABILITY {

template <class Acc>
Acc sum_of(at::vec::Vectorized<Acc> vector) {
  return at::vec::vec_reduce_all<Acc>([](auto a, auto b) { return a + b; }, vector);
}

template <class Acc>
Acc largest_of(at::vec::Vectorized<Acc> vector) {
  return at::vec::vec_reduce_all<Acc>([](auto a, auto b) { return at::vec::maximum(a, b); }, vector);
}

}  // namespace CPU_CAPABILITY
}  // namespace genie::ops
