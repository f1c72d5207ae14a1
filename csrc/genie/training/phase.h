#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "genie/config/config.h"
#include "genie/models/genie.h"

namespace genie::training {

using Metrics = std::vector<std::pair<std::string, double>>;

/// Part of a batch: float video (b,T,3,H,W) in [0,1] and the global numbers of its samples, from which
/// everything random about a sample is drawn.
struct Part {
  at::Tensor video;
  std::vector<int64_t> samples;
};

/// What a forward pass gives: the part's share of the batch's loss, and further scalars to log.
struct PartResult {
  at::Tensor loss;
  std::vector<std::pair<std::string, at::Tensor>> values;
};

/// One phase of training: which model is trained, on what loss. The loop round it is the Trainer's.
class Phase {
 public:
  virtual ~Phase() = default;

  virtual std::string name() const = 0;
  virtual torch::nn::Module& model() = 0;
  virtual const config::PhaseConfig& settings() const = 0;

  /// Fits what is fitted to data before the first step; video (b,T,3,H,W).
  virtual void initialize(const at::Tensor& /*video*/) {}
  /// How much a set of samples weighs in the mean that the loss is. A batch computed in parts sums to the
  /// same loss.
  virtual double weight(const std::vector<int64_t>& samples) const {
    return static_cast<double>(samples.size());
  }
  /// The loss of a part, as its share of a batch that weighs `total_weight`.
  virtual PartResult loss(const Part& part, double total_weight) = 0;
  /// After an optimizer step, or after one that was skipped.
  virtual void after_step(int64_t /*step*/, bool /*skipped*/) {}
  /// Numbers gathered since the last call (codebook usage).
  virtual Metrics gathered() { return {}; }
  /// What somebody should look at, judging by the last gathered(); empty where all is well.
  virtual std::string alarm() const { return ""; }
  /// Sums to average over validation clips, in evaluation mode.
  virtual Metrics validate(const Part& part) = 0;
};

/// The phase of that name: "tokenizer", "latent_action" or "dynamics".
std::unique_ptr<Phase> make_phase(const std::string& name, models::Genie genie);

/// In the order they are trained.
const std::vector<std::string>& phase_names();

}  // namespace genie::training
