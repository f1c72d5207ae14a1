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

TensorMap CodebookPhase::gathering() const {
  const at::Tensor& counts = quantizer_->usage_counts();
  return counts.defined() ? TensorMap{{"codebook_usage", counts}} : TensorMap();
}

void CodebookPhase::set_gathering(const TensorMap& tensors) {
  const auto counts = tensors.find("codebook_usage");
  if (counts == tensors.end()) return;
  const at::Tensor& codebook = quantizer_->codebook();
  check(counts->second.dim() == 1 && counts->second.size(0) == codebook.size(0),
        "checkpoint: the codebook's usage counts ", counts->second.sizes(), " codes of ", codebook.size(0));
  quantizer_->set_usage_counts(counts->second.to(codebook.options()));
}

std::string CodebookPhase::alarm() const {
  if (share_ >= usage_alarm_) return "";
  return concat("only ", std::lround(100 * share_), " % of the codes are in use (usage_alarm: ", usage_alarm_,
                "); a lower learning rate, update: ema, kmeans_init or a smaller dead_code_steps may help");
}

}  // namespace genie::training
