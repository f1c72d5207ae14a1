#include "genie/ops/maskgit/maskgit_step.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>

#include "genie/ops/autograd_helpers.h"
#include "genie/ops/float_check.h"

namespace genie::ops {

void check_maskgit_step(const at::Tensor& logits, const at::Tensor& tokens, const at::Tensor& mask,
                        const at::Tensor& sample_noise, const at::Tensor& confidence_noise,
                        const c10::SymInt& num_masked, const MaskgitOptions& options) {
  const char* op = "genie::maskgit_step";
  TORCH_CHECK_VALUE(logits.dim() == 3 && logits.sym_size(2) >= 1, op,
                    ": logits must be (B, N, K) with at least one code, got ", logits.sym_sizes());
  check_float(op, "logits", logits);
  const auto is_position = [&](const at::Tensor& x) {
    return x.dim() == 2 && x.sym_size(0) == logits.sym_size(0) && x.sym_size(1) == logits.sym_size(1);
  };
  TORCH_CHECK_VALUE(
      is_position(tokens) && is_position(mask) && is_position(sample_noise) && is_position(confidence_noise),
      op, ": tokens, mask, sample_noise and confidence_noise must be (B, N) = (", logits.sym_size(0), ", ",
      logits.sym_size(1), "), got ", tokens.sym_sizes(), ", ", mask.sym_sizes(), ", ",
      sample_noise.sym_sizes(), " and ", confidence_noise.sym_sizes());
  TORCH_CHECK_TYPE(tokens.scalar_type() == at::kLong, op, ": tokens must be int64, got ",
                   tokens.scalar_type());
  TORCH_CHECK_TYPE(mask.scalar_type() == at::kBool, op, ": mask must be bool, got ", mask.scalar_type());
  for (const auto& noise : {sample_noise, confidence_noise}) {
    TORCH_CHECK_TYPE(noise.scalar_type() == at::kFloat || noise.scalar_type() == at::kDouble, op,
                     ": noise must be float32 or float64, got ", noise.scalar_type());
  }
  for (const auto& tensor : {tokens, mask, sample_noise, confidence_noise}) {
    TORCH_CHECK_VALUE(tensor.device() == logits.device(), op, ": all tensors must be on one device, got ",
                      logits.device(), " and ", tensor.device());
  }
  TORCH_CHECK_VALUE(num_masked >= 0, op, ": num_masked must not be negative, got ", num_masked);
  constexpr double kHottest = 1e30;  // logits of float32 can be divided by it
  TORCH_CHECK_VALUE(options.temperature >= 0 && options.temperature <= kHottest, op,
                    ": temperature must be finite, 0 or more and at most ", kHottest, ", got ",
                    options.temperature);
  TORCH_CHECK_VALUE(options.top_k >= 0, op, ": top_k must be 0 (all codes) or more, got ", options.top_k);
  TORCH_CHECK_VALUE(options.top_p > 0 && options.top_p <= 1, op, ": top_p must be in (0, 1], got ",
                    options.top_p);
  TORCH_CHECK_VALUE(options.confidence_temperature >= 0 && std::isfinite(options.confidence_temperature), op,
                    ": confidence_temperature must be finite and 0 or more, got ",
                    options.confidence_temperature);
  TORCH_CHECK_VALUE(options.unmask == "confidence" || options.unmask == "random", op,
                    ": unmask is 'confidence' or 'random', not '", options.unmask, "'");
}

namespace {

constexpr const char* name = "genie::maskgit_step";
using Result = std::tuple<at::Tensor, at::Tensor>;
using Signature = Result(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                         const at::Tensor&, c10::SymInt, double, int64_t, double, double, std::string_view);

Result meta(const at::Tensor& logits, const at::Tensor& tokens, const at::Tensor& mask,
            const at::Tensor& sample_noise, const at::Tensor& confidence_noise, c10::SymInt num_masked,
            double temperature, int64_t top_k, double top_p, double confidence_temperature,
            std::string_view unmask) {
  check_maskgit_step(logits, tokens, mask, sample_noise, confidence_noise, num_masked,
                     {temperature, top_k, top_p, confidence_temperature, unmask});
  return {at::empty_symint(tokens.sym_sizes(), tokens.options()),
          at::empty_symint(mask.sym_sizes(), mask.options())};
}

/// Drawing has no gradient: the results are integers.
Result autograd(const at::Tensor& logits, const at::Tensor& tokens, const at::Tensor& mask,
                const at::Tensor& sample_noise, const at::Tensor& confidence_noise, c10::SymInt num_masked,
                double temperature, int64_t top_k, double top_p, double confidence_temperature,
                std::string_view unmask) {
  return dispatch_below_autograd<Signature>(name, logits, tokens, mask, sample_noise, confidence_noise,
                                            num_masked, temperature, top_k, top_p, confidence_temperature,
                                            unmask);
}

}  // namespace

Result maskgit_step(const at::Tensor& logits, const at::Tensor& tokens, const at::Tensor& mask,
                    const at::Tensor& sample_noise, const at::Tensor& confidence_noise, int64_t num_masked,
                    const MaskgitOptions& options) {
  return dispatch<Signature>(name, logits, tokens, mask, sample_noise, confidence_noise, num_masked,
                             options.temperature, options.top_k, options.top_p,
                             options.confidence_temperature, options.unmask);
}

TORCH_LIBRARY_FRAGMENT(genie, m) {
  m.def(
      "maskgit_step(Tensor logits, Tensor tokens, Tensor mask, Tensor sample_noise, Tensor confidence_noise, "
      "SymInt num_masked, float temperature=1.0, int top_k=0, float top_p=1.0, float "
      "confidence_temperature=0.0, "
      "str unmask=\"confidence\") -> (Tensor tokens, Tensor mask)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(genie, Meta, m) { m.impl("maskgit_step", meta); }
TORCH_LIBRARY_IMPL(genie, Autograd, m) { m.impl("maskgit_step", autograd); }

}  // namespace genie::ops
