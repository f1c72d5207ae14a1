#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "genie/ops/area_attention/area_attention.h"
#include "genie/ops/cuda/attention.h"
#include "genie/ops/cuda/torch_attention.h"
#include "genie/ops/unverified_kernels.h"

namespace genie::ops {
namespace {

constexpr const char* name = "genie::area_attention";
constexpr const char* backward_name = "genie::_area_attention_backward";

/// The tensor itself if its channels lie side by side, else a copy.
at::Tensor dense_channels(const at::Tensor& x) { return x.stride(2) == 1 ? x : x.contiguous(); }

/// Segments, by offsets that stay on the device, and the frames of their tokens.
struct DeviceSegments {
  at::Tensor offsets, frames;
  int64_t longest;

  DeviceSegments(const at::Tensor& cu_seqlens, int64_t max_seqlen, const std::optional<at::Tensor>& frame_ids)
      : offsets(cu_seqlens.to(at::kLong).contiguous()),
        frames(frame_ids ? frame_ids->to(at::kLong).contiguous() : at::Tensor()),
        longest(max_seqlen) {}

  AttentionCall call(const char* op, int64_t total, double scale) const {
    return {.op = op,
            .rows = {.total = total,
                     .length = std::min(longest, total),
                     .offsets = offsets.const_data_ptr<int64_t>(),
                     .frames = frames.defined() ? frames.const_data_ptr<int64_t>() : nullptr},
            .count = offsets.size(0) - 1,
            .scale = scale};
  }
  Segments for_torch() const { return {.offsets = offsets.to(at::kInt), .longest = longest}; }
};

/// Whether torch's kernels do: they know no frames.
bool by_torch(const at::Tensor& q, const DeviceSegments& segments, double scale) {
  return !segments.frames.defined() && torch_attention_takes(q, scale) &&
         q.size(0) <= std::numeric_limits<int32_t>::max();
}

double factor(const at::Tensor& q, std::optional<double> scale) {
  return scale.value_or(1 / std::sqrt(static_cast<double>(q.size(2))));
}

at::Tensor forward(const at::Tensor& q_, const at::Tensor& k_, const at::Tensor& v_,
                   const at::Tensor& cu_seqlens, int64_t max_seqlen, std::optional<double> scale,
                   const std::optional<at::Tensor>& frame_ids) {
  check_cuda_kernels_enabled(name);
  check_area_attention(q_, k_, v_, cu_seqlens, frame_ids);
  const c10::cuda::CUDAGuard on_device(q_.device());
  const HeadTensors x{dense_channels(q_), dense_channels(k_), dense_channels(v_)};
  at::Tensor out = at::empty(q_.sizes(), q_.options());
  if (out.numel() == 0) return out;
  const DeviceSegments segments(cu_seqlens, max_seqlen, frame_ids);
  const double by = factor(q_, scale);
  if (by_torch(q_, segments, by)) {
    return torch_attention(x.q, x.k, x.v, segments.for_torch(), by).contiguous();
  }
  attend_on_cuda(segments.call(name, q_.size(0), by), x, out);
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad_, const at::Tensor& q_,
                                                        const at::Tensor& k_, const at::Tensor& v_,
                                                        const at::Tensor& cu_seqlens, int64_t max_seqlen,
                                                        std::optional<double> scale,
                                                        const std::optional<at::Tensor>& frame_ids) {
  check_cuda_kernels_enabled(backward_name);
  check_area_attention(q_, k_, v_, cu_seqlens, frame_ids);
  TORCH_CHECK_VALUE(
      grad_.sizes() == q_.sizes() && grad_.scalar_type() == q_.scalar_type() && grad_.device() == q_.device(),
      backward_name, ": grad must be ", q_.sizes(), " of ", q_.scalar_type(), " on ", q_.device(), ", got ",
      grad_.sizes(), " of ", grad_.scalar_type(), " on ", grad_.device());
  const c10::cuda::CUDAGuard on_device(q_.device());
  const HeadTensors x{dense_channels(q_), dense_channels(k_), dense_channels(v_)};
  const at::Tensor grad = dense_channels(grad_);
  const auto empty = [&] { return at::empty(q_.sizes(), q_.options()); };
  const HeadTensors gradients{empty(), empty(), empty()};
  const auto results = std::tuple(gradients.q, gradients.k, gradients.v);
  if (q_.numel() == 0) return results;
  const DeviceSegments segments(cu_seqlens, max_seqlen, frame_ids);
  const double by = factor(q_, scale);
  if (by_torch(q_, segments, by)) {
    const auto [q, k, v] = torch_attention_backward(grad, x.q, x.k, x.v, segments.for_torch(), by);
    return {q.contiguous(), k.contiguous(), v.contiguous()};
  }
  attend_backward_on_cuda(segments.call(backward_name, q_.size(0), by), x, grad, gradients);
  return results;
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, CUDA, m) {
  m.impl("area_attention", forward);
  m.impl("_area_attention_backward", backward);
}

}  // namespace genie::ops
