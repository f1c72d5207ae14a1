#pragma once

#include <cstdint>
#include <vector>

#include "genie/core/random.h"
#include "genie/data/shuffle.h"

namespace genie::data {

/// Which clip each sample of an endless stream shows: sample s is entry s % clips of the permutation of epoch
/// s / clips, which depends on the seed and the epoch alone.
class SampleOrder {
 public:
  SampleOrder(int64_t clips, uint64_t seed) : clips_(clips), seed_(seed) {}

  int64_t clip_of(int64_t sample) {
    const int64_t wanted = sample / clips_;
    if (wanted != epoch_) {
      order_ = random_permutation(clips_, mix_seed(seed_, Stream::data_order, wanted));
      epoch_ = wanted;
    }
    return order_[sample % clips_];
  }

 private:
  int64_t clips_;
  uint64_t seed_;
  int64_t epoch_ = -1;
  std::vector<int64_t> order_;  ///< of that epoch
};

}  // namespace genie::data
