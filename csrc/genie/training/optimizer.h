#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "genie/config/config.h"
#include "genie/training/processes.h"
#include "genie/training/safetensors.h"

namespace genie::training {

/// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with torch's fused kernel. Weight decay acts on
/// matrices only: not on biases, norms, embeddings of positions or single vectors.
///
/// With `shard` each process keeps the moments of a part of the parameters, updates these and sends them to
/// the others (stage 1 of ZeRO, Rajbhandari et al. 2020, arXiv 1910.02054).
class AdamW {
 public:
  AdamW(const torch::nn::Module& model, const config::PhaseConfig& config, const Processes& processes = {},
        bool shard = false);

  /// Scales all gradients so that their common norm is at most `max_norm` (0: leaves them) and returns the
  /// norm before.
  double clip_gradients(double max_norm);
  /// All processes hold the same gradients. `weight_decay` acts on matrices; the configuration's where it is
  /// absent.
  void step(double learning_rate, std::optional<double> weight_decay = std::nullopt);
  /// clip_gradients() and step() on the device alone: nothing is read back, and what the host decides there
  /// the device decides here. Where `loss` (scalar) or the gradients' norm is not finite, parameters, moments
  /// and step counts stay as they are. `learning_rate` is a float32 scalar. Returns the norm. In one process.
  at::Tensor clip_and_step(const at::Tensor& loss, double max_norm, const at::Tensor& learning_rate);
  void zero_grad();

  /// Moments and step counts by parameter name, complete in the first process. All processes call it.
  TensorMap state() const;
  /// Gives all processes the first one's `state`; Error where names or shapes differ. All call it.
  void load_state(const TensorMap& state);
  /// Bytes of the moments that this process keeps.
  int64_t bytes() const;

 private:
  struct Entry {
    std::string name;
    at::Tensor parameter;
    int64_t owner = 0;                              // the process that keeps what follows
    at::Tensor first_moment, second_moment, steps;  // undefined elsewhere
    bool decays = false;
  };
  /// Entries with a gradient here, in the form of the fused kernel.
  struct Group {
    std::vector<at::Tensor> parameters, gradients, first_moments, second_moments, steps;
  };
  bool mine(const Entry& entry) const { return !sharded_ || entry.owner == processes_.rank(); }
  TensorMap tensors_of(const Entry& entry) const;
  void assign_owners();
  std::vector<at::Tensor> gradients() const;
  Group group(bool decays) const;
  void step_group(double learning_rate, bool decays, double weight_decay);

  config::PhaseConfig config_;
  Processes processes_;
  bool sharded_;
  std::vector<Entry> entries_;
};

}  // namespace genie::training
