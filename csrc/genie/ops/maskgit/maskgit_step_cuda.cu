#include <ATen/Dispatch.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <torch/library.h>

#include <tuple>

#include "genie/ops/cuda/launch.cuh"
#include "genie/ops/maskgit/draw_codes.cuh"
#include "genie/ops/maskgit/maskgit_step.h"
#include "genie/ops/unverified_kernels.h"

namespace genie::ops {
namespace {

constexpr const char* name = "genie::maskgit_step";

/// Throws the CPU kernel's errors. This waits for the device, as the caller of a step does next in any case.
void check_status(const at::Tensor& status, const at::Tensor& sample_noise,
                  const at::Tensor& confidence_noise) {
  const int64_t row = status.argmax().item<int64_t>(), positions = sample_noise.size(1);
  const int64_t state = status[row].item<int64_t>();
  const auto value = [&](const at::Tensor& noise) { return noise.reshape({-1})[row].item<double>(); };
  TORCH_CHECK_VALUE(state != bad_sample_noise, name, ": sample_noise must be in [0, 1), got ",
                    value(sample_noise));
  TORCH_CHECK_VALUE(state != bad_confidence_noise, name, ": confidence_noise must be in [0, 1), got ",
                    value(confidence_noise));
  TORCH_CHECK_VALUE(state != bad_logits, name, ": the logits of sample ", row / positions, ", position ",
                    row % positions, " hold NaN, +inf, or nothing but -inf: the model has diverged");
}

std::tuple<at::Tensor, at::Tensor> maskgit_step_cuda(const at::Tensor& logits_, const at::Tensor& tokens_,
                                                     const at::Tensor& mask_, const at::Tensor& sample_noise_,
                                                     const at::Tensor& confidence_noise_, int64_t num_masked,
                                                     double temperature, int64_t top_k, double top_p,
                                                     double confidence_temperature, std::string_view unmask) {
  check_cuda_kernels_enabled(name);
  check_maskgit_step(logits_, tokens_, mask_, sample_noise_, confidence_noise_, num_masked,
                     {temperature, top_k, top_p, confidence_temperature, unmask});
  const c10::cuda::CUDAGuard on_device(logits_.device());
  const at::Tensor logits = logits_.contiguous(), before = mask_.contiguous();
  const at::Tensor sample_noise = sample_noise_.to(at::kDouble).contiguous(),
                   confidence_noise = confidence_noise_.to(at::kDouble).contiguous();
  at::Tensor tokens = tokens_.clone(at::MemoryFormat::Contiguous);
  at::Tensor mask = before.clone(at::MemoryFormat::Contiguous);
  const int64_t rows = logits.size(0) * logits.size(1);
  if (rows == 0) return {tokens, mask};
  const at::Tensor masked = before.sum(1);
  const at::Tensor drawn = at::empty({rows}, tokens.options()), status = at::empty({rows}, tokens.options());
  const at::Tensor confidence = at::empty({rows}, sample_noise.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, logits.scalar_type(), "maskgit_step", [&] {
    const DrawTask<scalar_t> task{.logits = logits.const_data_ptr<scalar_t>(),
                                  .samples = logits.size(0),
                                  .positions = logits.size(1),
                                  .codes = logits.size(2),
                                  .mask = before.const_data_ptr<bool>(),
                                  .masked = masked.const_data_ptr<int64_t>(),
                                  .num_masked = num_masked,
                                  .sample_noise = sample_noise.const_data_ptr<double>(),
                                  .confidence_noise = confidence_noise.const_data_ptr<double>(),
                                  .temperature = temperature,
                                  .top_k = top_k,
                                  .top_p = top_p,
                                  .confidence_temperature = confidence_temperature,
                                  .random = unmask == "random"};
    launch(name, draw_codes_of<scalar_t>, grid_of(name, blocks_for(rows, block_warps)), 0, task,
           drawn.mutable_data_ptr<int64_t>(), confidence.mutable_data_ptr<double>(),
           status.mutable_data_ptr<int64_t>());
    check_status(status, sample_noise, confidence_noise);
    launch(name, reveal_codes<scalar_t>, grid_of(name, blocks_for(rows, block_threads)), 0, task,
           drawn.const_data_ptr<int64_t>(), confidence.const_data_ptr<double>(),
           tokens.mutable_data_ptr<int64_t>(), mask.mutable_data_ptr<bool>());
  });
  return {tokens, mask};
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, CUDA, m) { m.impl("maskgit_step", maskgit_step_cuda); }

}  // namespace genie::ops
