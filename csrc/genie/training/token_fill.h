#pragma once

#include <memory>
#include <string>

#include "genie/config/config.h"
#include "genie/data/clip_dataset.h"
#include "genie/models/genie.h"
#include "genie/training/processes.h"
#include "genie/training/token_cache.h"
#include "genie/training/trainer.h"

namespace genie::training {

/// What the tokens and latent actions of these clips depend on: the weights and configuration of tokenizer
/// and latent action model, the data file (path, size, time of change), which clips, and the precision.
CacheKey token_cache_key(models::Genie genie, const data::ClipDataset& clips, c10::ScalarType dtype);

/// The cache in `directory` with every clip that the dynamics phase will read, those missing computed now
/// (shared among the processes); says on stderr when one of another key is thrown away. Null where
/// should_stop asked to stop; what was computed stays.
std::shared_ptr<const TokenCache> fill_token_cache(models::Genie genie, const data::ClipDataset& clips,
                                                   const std::string& directory, const Processes& processes,
                                                   const TrainerHooks& hooks);

}  // namespace genie::training
