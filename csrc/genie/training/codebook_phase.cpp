#include "genie/training/codebook_phase.h"

#include "genie/core/random.h"

namespace genie::training {

void CodebookPhase::after_step(int64_t step, bool skipped) {
  if (skipped) {
    quantizer_->discard_statistics();
  } else {
    quantizer_->update_codebook(mix_seed(seed_, Stream::codebook, step));
  }
}

Metrics CodebookPhase::gathered() {
  const nn::CodebookUsage usage = quantizer_->take_usage();
  return {{"codebook_usage", usage.share}, {"codebook_perplexity", usage.perplexity}};
}

}  // namespace genie::training
