#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "genie/config/config.h"
#include "genie/models/genie.h"
#include "genie/training/processes.h"
#include "genie/training/safetensors.h"

namespace genie::training {

using Metrics = std::vector<std::pair<std::string, double>>;

/// Part of a batch: float video (b,T,3,H,W) in [0,1], or tokens and latent actions read from a cache in its
/// place, and the global numbers of its samples, from which everything random about a sample is drawn.
struct Part {
  at::Tensor video;
  std::vector<int64_t> samples;
  at::Tensor tokens = {};   ///< int64 (b,T,N)
  at::Tensor actions = {};  ///< int64 (b,T-1)
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

  /// Called once, before anything else, where several processes train: what is gathered from batches has to
  /// be gathered from all of them.
  virtual void share(const Processes& /*processes*/) {}
  /// Fits what is fitted to data before the first step; video (b,T,3,H,W).
  virtual void initialize(const at::Tensor& /*video*/) {}
  /// All that a part's loss depends on beside the models, on its device: what it holds, and what the host
  /// draws for its samples. Parts of as many samples have the same shapes.
  virtual TensorMap inputs(const Part& part);
  /// A part's sums of what the batch's loss is divided by, float64 (n), the first of them its samples unless
  /// said otherwise; those of all parts in all processes are added up, so that a batch computed in parts has
  /// the same loss.
  virtual at::Tensor totals(const TensorMap& inputs) const;
  /// The loss of a part, as its share of the batch's.
  virtual PartResult loss(const TensorMap& inputs, const at::Tensor& totals) = 0;
  /// From now on totals() and loss() read nothing back from the device, and make no tensor whose shape
  /// depends on values. Once a first batch was seen, that is: what it starts may be started as before.
  virtual void keep_to_device() {}
  /// What loss() has left for after_step() to use, which then is without it, and its inverse.
  virtual std::vector<at::Tensor> take_statistics() { return {}; }
  virtual void set_statistics(const std::vector<at::Tensor>& /*statistics*/) {}
  /// After an optimizer step, or after one that was skipped.
  virtual void after_step(int64_t /*step*/, bool /*skipped*/) {}
  /// Numbers gathered since the last call (codebook usage).
  virtual Metrics gathered() { return {}; }
  /// What gathered() will tell of, for a checkpoint, and its inverse.
  virtual TensorMap gathering() const { return {}; }
  virtual void set_gathering(const TensorMap& /*tensors*/) {}
  /// What somebody should look at, judging by the last gathered(); empty where all is well.
  virtual std::string alarm() const { return ""; }
  /// Sums to average over validation clips, in evaluation mode.
  virtual Metrics validate(const Part& part) = 0;
};

/// The share of a sum over a batch, totals[i], that `part` is: a float32 scalar on its device.
at::Tensor share_of(double part, const at::Tensor& totals, int64_t i = 0);

/// The phase of that name: "tokenizer", "latent_action", "dynamics" or "cotrain".
std::unique_ptr<Phase> make_phase(const std::string& name, models::Genie genie);

/// The phases of a configuration, in the order they are trained: cotrain, where it has steps, takes the place
/// of latent_action and dynamics.
std::vector<std::string> phase_names(const config::Config& config);

/// The section of the configuration that a phase's length, batch and optimizer come from.
const config::PhaseConfig& settings_of_phase(const config::TrainingConfig& training,
                                             const std::string& phase);

/// The models that a phase trains, by their names in Genie.
std::vector<std::string> models_of_phase(const std::string& phase);

}  // namespace genie::training
