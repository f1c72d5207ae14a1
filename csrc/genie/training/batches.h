#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "genie/config/config.h"
#include "genie/data/clip_dataset.h"
#include "genie/data/loader.h"
#include "genie/training/phase.h"
#include "genie/training/token_cache.h"

namespace genie::training {

/// A phase's endless batches, each in the parts it is computed in.
class Batches {
 public:
  virtual ~Batches() = default;
  virtual std::vector<Part> next(int64_t parts) = 0;
  /// Time that next() has spent waiting for data.
  virtual double wait_seconds() const = 0;
};

/// How a phase's samples are cut into the batches of this process.
data::LoaderOptions loader_options(const config::Config& config, const std::string& phase,
                                   const Processes& processes);

/// Video, read ahead from a dataset, from batch number `position` on.
std::unique_ptr<Batches> video_batches(std::shared_ptr<const data::ClipDataset> clips,
                                       const data::LoaderOptions& options, int64_t position,
                                       const c10::Device& device);

/// The same samples as tokens and actions from a cache that holds them all.
std::unique_ptr<Batches> cached_batches(std::shared_ptr<const TokenCache> cache,
                                        const data::LoaderOptions& options, int64_t position,
                                        const c10::Device& device);

}  // namespace genie::training
