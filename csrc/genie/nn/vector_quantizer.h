#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "genie/config/model_config.h"
#include "genie/nn/rebindable.h"

namespace genie::nn {

/// What quantizing gives.
struct Quantized {
  at::Tensor values;   ///< (...,D): the nearest entries; gradients pass straight through to the encodings
  at::Tensor indices;  ///< int64 (...)
  at::Tensor loss;  ///< scalar: commitment (and, with update "loss", codebook) term; squared distance, mean
                    ///< over vectors
};

/// How evenly the codebook was used since it was last asked.
struct CodebookUsage {
  double share = 0;       ///< of the entries that were used at all
  double perplexity = 0;  ///< exp of the entropy of their frequencies
};

/// What several processes that train one codebook do together. Empty functions: there is one process.
struct CodebookSharing {
  std::function<void(at::Tensor&)> sum;                      ///< in place, over all processes
  std::function<at::Tensor(const at::Tensor&)> gather_rows;  ///< those of all processes, in their order
};

/// Vector quantization (van den Oord et al. 2017, arXiv 1711.00937) with the straight-through estimator.
/// Entries follow the encodings by moving averages ("ema") or by the codebook loss ("loss"). In training mode
/// forward() gathers the statistics that update_codebook() - to be called once an optimizer step - turns into
/// new entries: that way accumulated batches count once and a skipped step changes nothing. Entries unused
/// for dead_code_steps updates restart at badly served encodings of the last batch. With kmeans_init the
/// first training batch places all entries.
class VectorQuantizerImpl : public torch::nn::Module, public Rebindable {
 public:
  explicit VectorQuantizerImpl(const config::QuantizerConfig& config);

  /// x (...,D) to its nearest entries.
  Quantized forward(const at::Tensor& x);
  /// Entries (...,D) of indices (...); throws on an index outside the codebook.
  at::Tensor lookup(const at::Tensor& indices) const;
  const at::Tensor& codebook() const { return codebook_; }  ///< (K,D)
  const config::QuantizerConfig& config() const { return config_; }

  /// From now on all processes see the statistics and encodings of all; each must make the same calls.
  void share(CodebookSharing sharing) { sharing_ = std::move(sharing); }
  /// Places all entries at k-means centers of x (M,D).
  void initialize_from(const at::Tensor& x, uint64_t seed);
  /// Applies the statistics gathered since the last call; `seed` draws where dead entries restart.
  void update_codebook(uint64_t seed);
  /// Those gathered since the last update, for a caller that computes forward() by other means, and their
  /// inverse; forgotten here. Empty where there are none.
  std::vector<at::Tensor> take_statistics();
  void set_statistics(const std::vector<at::Tensor>& statistics);
  /// Forgets the statistics gathered since the last update (a step that was skipped).
  void discard_statistics();
  /// Usage over the updates since the last call.
  CodebookUsage take_usage();
  /// What take_usage() will tell of: how often each entry was used (K); undefined where there was no update.
  const at::Tensor& usage_counts() const { return usage_; }
  void set_usage_counts(const at::Tensor& counts) { usage_ = counts; }

  void rebind(const std::string& name, const at::Tensor& tensor) override;

 private:
  /// Reads the flag back from the device where it may have changed since it was last set.
  bool is_initialized();
  void gather(const at::Tensor& x, const at::Tensor& indices);
  void sum_statistics();
  at::Tensor of_all_processes(const at::Tensor& rows) const {
    return sharing_.gather_rows ? sharing_.gather_rows(rows) : rows;
  }

  config::QuantizerConfig config_;
  at::Tensor codebook_;                                          // parameter with update "loss", else buffer
  at::Tensor ema_count_, ema_sum_, unused_steps_, initialized_;  // buffers
  at::Tensor batch_count_, batch_sum_, batch_sample_;            // statistics of the step under way
  std::optional<uint32_t> set_version_;  // of initialized_, when it was last seen to be true
  CodebookSharing sharing_;
  at::Tensor usage_;  // counts since take_usage()
};
TORCH_MODULE(VectorQuantizer);

}  // namespace genie::nn
