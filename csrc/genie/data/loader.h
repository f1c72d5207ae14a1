#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "genie/data/clip_dataset.h"

namespace genie::data {

struct Batch {
  at::Tensor video;          ///< uint8 (B,T,H,W,3)
  at::Tensor actions;        ///< int64 (B,T-1); undefined where the file has none
  at::Tensor indices;        ///< int64 (B), the clips' indices
  int64_t first_sample = 0;  ///< global number of the batch's first sample since the run began
};

/// How a loader cuts the endless stream of samples: sample s belongs to step s / (batch_size * world_size).
struct LoaderOptions {
  int64_t batch_size = 4;  ///< a process
  uint64_t seed = 0;
  int64_t rank = 0;
  int64_t world_size = 1;
  int64_t num_workers = 2;
  int64_t prefetch = 4;  ///< batches
  bool augment = true;
};

/// Endless batches in SampleOrder, read ahead by worker threads; position() is all the state there is. An
/// error in a worker is thrown by next().
class Loader {
 public:
  Loader(std::shared_ptr<const ClipDataset> dataset, const LoaderOptions& options, int64_t position = 0);
  ~Loader();

  Batch next();
  int64_t position()
      const;  ///< batches handed out since the run began; a Loader made with it continues there
  double wait_seconds() const;  ///< time next() has spent waiting

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace genie::data
