#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <vector>

#include "genie/ops/cuda/attention.h"
#include "genie/ops/cuda/torch_attention.h"
#include "genie/ops/st_attention/st_attention.h"
#include "genie/ops/unverified_kernels.h"

namespace genie::ops {
namespace {

constexpr const char* name = "genie::st_attention";
constexpr const char* backward_name = "genie::_st_attention_backward";

/// Longer sequences of frames are laid side by side for torch's kernels.
constexpr int64_t most_frames = 64;

double factor(const at::Tensor& qkv, std::optional<double> scale) {
  return scale.value_or(1 / std::sqrt(static_cast<double>(qkv.size(5))));
}

int64_t count_rows(const at::Tensor& qkv) { return qkv.size(0) * qkv.size(1) * qkv.size(2); }

at::Tensor packed_rows(const at::Tensor& qkv) {
  return qkv.view({count_rows(qkv), 3, qkv.size(4), qkv.size(5)});
}

/// Queries, keys and values of packed (B, T, N, 3, heads, head_dim), as (rows, heads, head_dim).
HeadTensors parts(const at::Tensor& qkv) {
  const at::Tensor rows = packed_rows(qkv);
  return {rows.select(1, 0), rows.select(1, 1), rows.select(1, 2)};
}

at::Tensor as_rows(const at::Tensor& merged, const at::Tensor& qkv) {
  return merged.view({count_rows(qkv), qkv.size(4), qkv.size(5)});
}

/// Frames as segments of torch's kernels.
Segments frames_of(const at::Tensor& qkv, bool causal) {
  const int64_t frames = qkv.size(0) * qkv.size(1), positions = qkv.size(2);
  TORCH_CHECK_VALUE(count_rows(qkv) <= std::numeric_limits<int32_t>::max(), name, ": ", count_rows(qkv),
                    " tokens are more than torch's kernels number; use a smaller batch");
  const auto options = qkv.options().dtype(at::kInt);
  return {.offsets = at::arange(0, frames * positions + 1, positions, options),
          .longest = positions,
          .causal = causal};
}

/// Queries and keys as torch's kernels are to see them.
HeadTensors normalized_parts(const at::Tensor& qkv, bool qk_norm) {
  HeadTensors x = parts(qkv);
  if (!qk_norm) return x;
  const at::Tensor qk = normalize_heads_on_cuda(name, packed_rows(qkv));
  return {qk.select(1, 0), qk.select(1, 1), x.v};
}

AttentionCall call_of(const char* op, const at::Tensor& qkv, bool time, bool causal, bool qk_norm,
                      double scale) {
  const SequenceRows rows{.total = count_rows(qkv),
                          .length = qkv.size(time ? 1 : 2),
                          .inner = time ? qkv.size(2) : 1,
                          .causal = causal};
  return {.op = op, .rows = rows, .count = rows.total / rows.length, .scale = scale, .qk_norm = qk_norm};
}

at::Tensor forward(const at::Tensor& qkv_, std::string_view axis, bool causal, bool qk_norm,
                   std::optional<double> scale) {
  check_cuda_kernels_enabled(name);
  check_st_attention(qkv_, axis);
  const c10::cuda::CUDAGuard on_device(qkv_.device());
  const bool time = axis == "time", by_torch = torch_attention_takes(qkv_, factor(qkv_, scale));
  if (time && by_torch && qkv_.size(1) > most_frames) {
    return forward(qkv_.transpose(1, 2), "space", causal, qk_norm, scale).transpose(1, 2).contiguous();
  }
  const at::Tensor qkv = qkv_.contiguous();
  at::Tensor out =
      at::empty({qkv.size(0), qkv.size(1), qkv.size(2), qkv.size(4) * qkv.size(5)}, qkv.options());
  if (out.numel() == 0) return out;
  if (!time && by_torch) {
    const HeadTensors x = normalized_parts(qkv, qk_norm);
    return torch_attention(x.q, x.k, x.v, frames_of(qkv, causal), factor(qkv, scale)).reshape(out.sizes());
  }
  attend_on_cuda(call_of(name, qkv, time, causal, qk_norm, factor(qkv, scale)), parts(qkv),
                 as_rows(out, qkv));
  return out;
}

at::Tensor backward(const at::Tensor& grad_, const at::Tensor& qkv_, std::string_view axis, bool causal,
                    bool qk_norm, std::optional<double> scale) {
  check_cuda_kernels_enabled(backward_name);
  check_st_attention(qkv_, axis);
  const std::vector<int64_t> expected{qkv_.size(0), qkv_.size(1), qkv_.size(2), qkv_.size(4) * qkv_.size(5)};
  TORCH_CHECK_VALUE(grad_.sizes() == expected && grad_.scalar_type() == qkv_.scalar_type() &&
                        grad_.device() == qkv_.device(),
                    backward_name, ": grad must be ", expected, " of ", qkv_.scalar_type(), " on ",
                    qkv_.device(), ", got ", grad_.sizes(), " of ", grad_.scalar_type(), " on ",
                    grad_.device());
  const c10::cuda::CUDAGuard on_device(qkv_.device());
  const bool time = axis == "time", by_torch = torch_attention_takes(qkv_, factor(qkv_, scale));
  if (time && by_torch && qkv_.size(1) > most_frames) {
    return backward(grad_.transpose(1, 2), qkv_.transpose(1, 2), "space", causal, qk_norm, scale)
        .transpose(1, 2)
        .contiguous();
  }
  const at::Tensor qkv = qkv_.contiguous(), grad = grad_.contiguous();
  if (qkv.numel() == 0) return at::zeros_like(qkv);
  if (!time && by_torch) {
    const HeadTensors x = normalized_parts(qkv, qk_norm);
    const auto [q, k, v] = torch_attention_backward(as_rows(grad, qkv), x.q, x.k, x.v, frames_of(qkv, causal),
                                                    factor(qkv, scale));
    const auto dense = [](const at::Tensor& x) { return x.stride(2) == 1 ? x : x.contiguous(); };
    return pack_gradients_on_cuda(backward_name, packed_rows(qkv), qk_norm, {dense(q), dense(k), dense(v)})
        .view(qkv.sizes());
  }
  at::Tensor grad_qkv = at::empty_like(qkv);
  attend_backward_on_cuda(call_of(backward_name, qkv, time, causal, qk_norm, factor(qkv, scale)), parts(qkv),
                          as_rows(grad, qkv), parts(grad_qkv));
  return grad_qkv;
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, CUDA, m) {
  m.impl("st_attention", forward);
  m.impl("_st_attention_backward", backward);
}

}  // namespace genie::ops
