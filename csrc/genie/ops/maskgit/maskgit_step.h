#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>
#include <tuple>

namespace genie::ops {

/// How maskgit_step draws tokens and orders them.
struct MaskgitOptions {
  double temperature = 1;             ///< divides the logits; 0 takes the most probable code
  int64_t top_k = 0;                  ///< draw among the k most probable codes only; 0 means all
  double top_p = 1;                   ///< draw among the fewest codes that hold this probability
  double confidence_temperature = 0;  ///< weight of Gumbel noise on the log-confidence
  std::string_view unmask =
      "confidence";  ///< "confidence", or "random": `confidence_noise` is the confidence
};

/// One step of MaskGIT decoding (Chang et al. 2022, arXiv 2202.04200) in one pass over the logits: draws a
/// code for each masked position, keeps the most confident draws and leaves `num_masked` positions of each
/// sample masked.
///
/// `logits`: (B, N, K) in float32, bfloat16 or float64 (on CUDA float16 too). `tokens`: (B, N) int64. `mask`:
/// (B, N) bool, true where masked. `sample_noise`, `confidence_noise`: (B, N), float32 or float64, uniform in
/// [0, 1). A code is drawn by the inverse of its cumulative probability at `sample_noise`, in the order of
/// the codes. The confidence is the model's probability of the drawn code (softmax of the logits themselves,
/// so that it ranks at temperature 0 too); among equals the first position is kept. A sample with no more
/// than `num_masked` masked positions stays as it is.
///
/// Returns new (tokens, mask); positions that were not masked keep their token. Nothing has a gradient.
/// Raises ValueError for shapes and ranges, and for a masked position whose logits hold NaN, +inf, or nothing
/// but -inf.
std::tuple<at::Tensor, at::Tensor> maskgit_step(const at::Tensor& logits, const at::Tensor& tokens,
                                                const at::Tensor& mask, const at::Tensor& sample_noise,
                                                const at::Tensor& confidence_noise, int64_t num_masked,
                                                const MaskgitOptions& options = {});

void check_maskgit_step(const at::Tensor& logits, const at::Tensor& tokens, const at::Tensor& mask,
                        const at::Tensor& sample_noise, const at::Tensor& confidence_noise,
                        const c10::SymInt& num_masked, const MaskgitOptions& options);

}  // namespace genie::ops
