#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "genie/config/config.h"
#include "genie/data/clip_dataset.h"
#include "genie/training/phase.h"
#include "genie/training/processes.h"
#include "genie/training/token_cache.h"

namespace genie::training {

/// What a caller may watch and ask of a training run.
struct TrainerHooks {
  /// Called with each line of numbers that is logged, from the training thread.
  std::function<void(const std::string& phase, int64_t step, const Metrics&)> on_metrics;
  /// Asked once a step; true saves a checkpoint and stops.
  std::function<bool()> should_stop;
  bool show_progress = true;
};

/// Makes the token cache that a phase reads from in place of video; null where should_stop asked to stop.
using CacheMaker = std::function<std::shared_ptr<const TokenCache>()>;

enum class Outcome { finished, stopped };

/// The one training loop. For each step: next batch, loss and gradients part by part, clip, AdamW, codebook;
/// then, when due, log, validate, save. Everything random depends on (seed, step, sample number) alone, so a
/// run resumed from a checkpoint repeats the run that was never stopped, and several processes give what one
/// would with all their batches. The first process alone reads and writes the run directory.
class Trainer {
 public:
  /// `directory` is the phase's: it receives metrics.jsonl and checkpoints/. With `resume` training continues
  /// from the newest checkpoint there; without, a directory that has one is an Error.
  Trainer(Phase& phase, const config::Config& config, std::string directory, bool resume, TrainerHooks hooks,
          const Processes& processes = {});

  /// Takes batches from a token cache, made when training is about to begin.
  void use_cache(CacheMaker make_cache) { make_cache_ = std::move(make_cache); }

  Outcome run(std::shared_ptr<const data::ClipDataset> training,
              std::shared_ptr<const data::ClipDataset> validation);

 private:
  struct Loop;

  Phase& phase_;
  config::Config config_;
  std::string directory_;
  bool resume_;
  TrainerHooks hooks_;
  Processes processes_;
  CacheMaker make_cache_;
};

}  // namespace genie::training
