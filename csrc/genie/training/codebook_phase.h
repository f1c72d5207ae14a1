#pragma once

#include "genie/nn/vector_quantizer.h"
#include "genie/training/phase.h"

namespace genie::training {

/// A phase whose model has a codebook: updates it after each step and reports how it is used.
class CodebookPhase : public Phase {
 public:
  CodebookPhase(nn::VectorQuantizer quantizer, const config::QuantizerConfig& config, uint64_t seed)
      : quantizer_(std::move(quantizer)), seed_(seed), usage_alarm_(config.usage_alarm) {}

  void share(const Processes& processes) override;
  void after_step(int64_t step, bool skipped) override;
  Metrics gathered() override;
  TensorMap gathering() const override;
  void set_gathering(const TensorMap& tensors) override;
  std::string alarm() const override;
  std::vector<at::Tensor> take_statistics() override { return quantizer_->take_statistics(); }
  void set_statistics(const std::vector<at::Tensor>& statistics) override {
    quantizer_->set_statistics(statistics);
  }

 protected:
  nn::VectorQuantizer quantizer_;
  uint64_t seed_;

 private:
  double usage_alarm_;
  double share_ = 1;  // of the codes in use, when last gathered
};

}  // namespace genie::training
