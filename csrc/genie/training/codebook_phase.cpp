#include "genie/training/codebook_phase.h"

#include <cmath>

#include "genie/core/error.h"
#include "genie/core/random.h"

namespace genie::training {

void CodebookPhase::share(const Processes& processes) {
  if (processes.alone()) return;
  quantizer_->share(
      {.sum = [processes](at::Tensor& tensor) { processes.sum(tensor); },
       .gather_rows = [processes](const at::Tensor& rows) { return processes.gather_rows(rows); }});
}

void CodebookPhase::after_step(int64_t step, bool skipped) {
  if (skipped) {
    quantizer_->discard_statistics();
  } else {
    quantizer_->update_codebook(mix_seed(seed_, Stream::codebook, step));
  }
}

Metrics CodebookPhase::gathered() {
  const nn::CodebookUsage usage = quantizer_->take_usage();
  share_ = usage.share;
  return {{"codebook_usage", usage.share}, {"codebook_perplexity", usage.perplexity}};
}

std::string CodebookPhase::alarm() const {
  if (share_ >= usage_alarm_) return "";
  return concat("only ", std::lround(100 * share_), " % of the codes are in use (usage_alarm: ", usage_alarm_,
                "); a lower learning rate, update: ema, kmeans_init or a smaller dead_code_steps may help");
}

}  // namespace genie::training
