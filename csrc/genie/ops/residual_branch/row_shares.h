#pragma once

#include <ATen/Parallel.h>
#include <ATen/ThreadLocalState.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "genie/ops/row_pieces.h"

namespace genie::ops {

/// How a CPU shares out the rows that go through a linear map. Where there are many, each thread takes a
/// stretch of them, and of that a piece at a time through everything that is done to it: pieces stay in the
/// caches from one product to the next, threads don't wait for each other in between, and a thread's product
/// of few rows by a whole weight runs no slower than all threads' of all rows. Where there are few, there is
/// one share, whose products use all threads.
class RowShares {
 public:
  RowShares(int64_t rows, const at::Tensor& weight) : rows_(rows) {
    const int64_t narrow = std::min(weight.size(0), weight.size(1));
    // With fewer, what a thread adds up for a weight's gradient would be larger than its rows' results.
    const int64_t fewest = std::max<int64_t>(256, narrow), threads = at::get_num_threads();
    const bool many = rows >= fewest * threads && !at::in_parallel_region();
    count_ = many ? threads : 1;
    const int64_t best = many ? 512 : rows_at_once(std::max(weight.size(0), weight.size(1)));
    const int64_t share = (rows + count_ - 1) / count_,
                  pieces = std::max<int64_t>(1, (share + best / 2) / best);
    piece_ = (share + pieces - 1) / pieces;
  }

  int64_t count() const { return count_; }
  /// The rows of the largest piece.
  int64_t piece() const { return piece_; }

  /// Calls body(share, pieces) for all shares, in parallel; pieces(each) calls each(first row, rows).
  void in_parallel(const auto& body) const {
    const at::ThreadLocalState state;
    at::parallel_for(0, count_, 1, [&](int64_t first, int64_t last) {
      const at::ThreadLocalStateGuard as_the_caller(state);
      for (int64_t share = first; share < last; ++share) {
        const int64_t begin = rows_ * share / count_, end = rows_ * (share + 1) / count_;
        body(share, [&](const auto& each) {
          for (int64_t row = begin; row < end; row += piece_) each(row, std::min(piece_, end - row));
        });
      }
    });
  }

 private:
  int64_t rows_, count_, piece_;
};

/// A sum over rows, which each share adds up for itself.
class SharedSum {
 public:
  SharedSum(const RowShares& shares, at::IntArrayRef size, const at::TensorOptions& options) {
    for (int64_t share = 0; share < shares.count(); ++share) parts_.push_back(at::zeros(size, options));
  }
  const at::Tensor& of(int64_t share) const { return parts_[static_cast<size_t>(share)]; }
  /// Adds the others to the first share's.
  at::Tensor total() const {
    for (size_t share = 1; share < parts_.size(); ++share) parts_[0].add_(parts_[share]);
    return parts_[0];
  }

 private:
  std::vector<at::Tensor> parts_;
};

}  // namespace genie::ops
