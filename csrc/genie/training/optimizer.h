#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "genie/config/config.h"
#include "genie/training/safetensors.h"

namespace genie::training {

/// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) with torch's fused kernel. Weight decay acts on
/// matrices only: not on biases, norms, embeddings of positions or single vectors.
class AdamW {
 public:
  AdamW(const torch::nn::Module& model, const config::PhaseConfig& config);

  /// Scales all gradients so that their common norm is at most `max_norm` (0: leaves them) and returns the
  /// norm before.
  double clip_gradients(double max_norm);
  /// `weight_decay` acts on matrices; the configuration's where it is absent.
  void step(double learning_rate, std::optional<double> weight_decay = std::nullopt);
  void zero_grad();

  /// Moments and step counts by parameter name, and their inverse; load throws Error where names or shapes
  /// differ.
  TensorMap state() const;
  void load_state(const TensorMap& state);

 private:
  struct Group {
    double weight_decay = 0;
    std::vector<std::string> names;
    std::vector<at::Tensor> parameters, first_moments, second_moments, steps;
  };
  std::vector<at::Tensor> gradients() const;

  config::PhaseConfig config_;
  Group groups_[2];
};

}  // namespace genie::training
