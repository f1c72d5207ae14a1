#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace genie::nn {

/// The seeds that a forward pass draws dropout from, one a sample, and how many draws it has made.
struct SampleSeeds {
  std::shared_ptr<const std::vector<uint64_t>> of_samples;  ///< null: draws come from torch's generator
  uint64_t draws = 0;
};

/// While it lives, the dropout and stochastic depth of this thread draw for each sample from its own seed: a
/// sample is treated alike whichever others share its batch, part or process.
class SampleSeedsScope {
 public:
  explicit SampleSeedsScope(std::vector<uint64_t> seeds);
  /// Goes on as `seeds` was (gradient checkpointing draws again what forward drew).
  explicit SampleSeedsScope(SampleSeeds seeds);
  ~SampleSeedsScope();
  SampleSeedsScope(const SampleSeedsScope&) = delete;
  SampleSeedsScope& operator=(const SampleSeedsScope&) = delete;

 private:
  SampleSeeds former_;
};

/// Those of the innermost scope.
SampleSeeds sample_seeds();

/// `x` with a share of `rate` of its values zeroed and the others divided by 1 - rate; `x` itself outside
/// training. Dimension 0 is the samples, or folded from them and what follows.
at::Tensor dropout(const at::Tensor& x, double rate, bool training);

/// Ones that survive with probability `keep`, divided by it, and zeros, in the shape given (dimension 0 as
/// for dropout).
at::Tensor keep_mask(at::IntArrayRef shape, double keep, const at::TensorOptions& options);

/// at::scaled_dot_product_attention, whose dropout also follows the seeds of the samples.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const std::optional<at::Tensor>& mask, double dropout_rate, bool causal, double scale);

}  // namespace genie::nn
