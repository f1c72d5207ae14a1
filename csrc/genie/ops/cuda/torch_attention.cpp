#include "genie/ops/cuda/torch_attention.h"

#include <ATen/Context.h>
#include <ATen/ops/_efficient_attention_backward.h>
#include <ATen/ops/_efficient_attention_forward.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>

#include <optional>

namespace genie::ops {
namespace {

/// FlashAttention's backward pass sums in a fixed order only where torch is told to be deterministic.
class Deterministic {
 public:
  Deterministic()
      : before_(at::globalContext().deterministicAlgorithms()),
        warn_only_(at::globalContext().deterministicAlgorithmsWarnOnly()) {
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  }
  ~Deterministic() { at::globalContext().setDeterministicAlgorithms(before_, warn_only_); }
  Deterministic(const Deterministic&) = delete;
  Deterministic& operator=(const Deterministic&) = delete;

 private:
  bool before_, warn_only_;
};

bool is_half(const at::Tensor& x) { return x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf; }

auto flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Segments& segments,
           double scale) {
  const std::optional<at::Tensor> offsets = segments.offsets;
  return at::_flash_attention_forward(q, k, v, offsets, offsets, segments.longest, segments.longest,
                                      /*dropout_p=*/0.0, segments.causal, /*return_debug_mask=*/false,
                                      std::optional<double>(scale));
}

/// The memory-efficient kernel's number for a mask that hides what comes later.
int64_t mask_type(const Segments& segments) { return segments.causal ? 1 : 0; }

auto efficient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Segments& segments,
               double scale, bool for_backward) {
  const std::optional<at::Tensor> offsets = segments.offsets;
  return at::_efficient_attention_forward(
      q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), /*bias=*/std::nullopt, offsets, offsets,
      std::optional<int64_t>(segments.longest), std::optional<int64_t>(segments.longest),
      /*dropout_p=*/0.0, mask_type(segments), for_backward, std::optional<double>(scale));
}

}  // namespace

bool torch_attention_takes(const at::Tensor& q, double scale) {
  const int64_t channels = q.size(-1);
  return (is_half(q) || q.scalar_type() == at::kFloat) && channels % 8 == 0 && channels <= 256 && scale > 0;
}

at::Tensor torch_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const Segments& segments, double scale) {
  if (is_half(q)) return std::get<0>(flash(q, k, v, segments, scale));
  return std::get<0>(efficient(q, k, v, segments, scale, false)).squeeze(0);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> torch_attention_backward(
    const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const Segments& segments, double scale) {
  if (is_half(q)) {
    const auto [out, log_sums, random_state, unused, debug] = flash(q, k, v, segments, scale);
    const Deterministic deterministic;
    return at::_flash_attention_backward(grad, q, k, v, out, log_sums, segments.offsets, segments.offsets,
                                         segments.longest, segments.longest, /*dropout_p=*/0.0,
                                         segments.causal, random_state, unused, std::optional<double>(scale));
  }
  const auto [out, log_sums, seed, offset, longest_q, longest_k] = efficient(q, k, v, segments, scale, true);
  const std::optional<at::Tensor> offsets = segments.offsets;
  // One split of the keys: several would add up their gradients in any order.
  const auto [grad_q, grad_k, grad_v, grad_bias] = at::_efficient_attention_backward(
      grad.unsqueeze(0), q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), /*bias=*/std::nullopt, out, offsets,
      offsets, segments.longest, segments.longest, log_sums, /*dropout_p=*/0.0, seed, offset,
      mask_type(segments),
      /*bias_requires_grad=*/false, std::optional<double>(scale),
      /*num_splits_key=*/std::optional<int64_t>(1));
  return {grad_q.squeeze(0), grad_k.squeeze(0), grad_v.squeeze(0)};
}

}  // namespace genie::ops
