#pragma once

#include <cstdint>

namespace genie::ops {

/// The rows of sequence s: offsets[s] .. offsets[s + 1] - 1 where offsets are given, else `length` rows that
/// stand `inner` apart, of `inner` sequences that interleave.
struct SequenceRows {
  int64_t total;   // rows of the arrays
  int64_t length;  // of each sequence; with offsets of the longest, for the size of the grid alone
  int64_t inner = 1;
  const int64_t* offsets = nullptr;
  const int64_t* frames = nullptr;  // by row: an element sees those of its own frame and of earlier ones
  bool causal = false;              // an element sees itself and those before it
};

}  // namespace genie::ops
