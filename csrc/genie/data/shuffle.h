#pragma once

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "genie/core/random.h"

namespace genie::data {

/// A sequence of random numbers from a seed, the same on every platform (std::shuffle and the distributions
/// of <random> are not).
class RandomSequence {
 public:
  explicit RandomSequence(uint64_t seed) : state_(seed) {}

  uint64_t next() { return splitmix64(state_ += 0x9e3779b97f4a7c15ull); }
  /// Uniform in 0..bound-1. The bias is below bound / 2^64.
  int64_t below(int64_t bound) {
    return static_cast<int64_t>((static_cast<unsigned __int128>(next()) * static_cast<uint64_t>(bound)) >>
                                64);
  }
  /// Uniform in [0, 1), a multiple of 2^-53.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  uint64_t state_;
};

/// A permutation of 0..size-1 (Fisher and Yates' shuffle).
inline std::vector<int64_t> random_permutation(int64_t size, uint64_t seed) {
  std::vector<int64_t> order(size);
  std::iota(order.begin(), order.end(), 0);
  RandomSequence random(seed);
  for (int64_t i = size - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
  return order;
}

}  // namespace genie::data
