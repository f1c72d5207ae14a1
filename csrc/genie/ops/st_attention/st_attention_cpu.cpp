#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <cmath>
#include <vector>

#include "genie/ops/sequence_attention/sequence_attention.h"
#include "genie/ops/st_attention/st_attention.h"

namespace genie::ops {
namespace {

/// The sequences of one axis as rows (b, t, n) of the tensor.
struct AxisRows {
  std::vector<int64_t> offsets, rows, limits;

  AxisRows(at::IntArrayRef size, bool time, bool causal) {
    const int64_t frames = size[1], positions = size[2], total = size[0] * frames * positions;
    const int64_t length = time ? frames : positions;
    const int64_t count = length ? total / length : 0;
    rows.reserve(static_cast<size_t>(total));
    for (int64_t s = 0; s < count; ++s) {
      const int64_t first = time ? s / positions * frames * positions + s % positions : s * positions;
      const int64_t step = time ? positions : 1;
      offsets.push_back(s * length);
      for (int64_t i = 0; i < length; ++i) {
        rows.push_back(first + i * step);
        if (causal) limits.push_back(i + 1);
      }
    }
    offsets.push_back(total);
  }
};

template <class Data, class Tensor>
HeadRows<Data> part(const Tensor& qkv, int64_t which) {
  const int64_t heads = qkv.size(4), channels = qkv.size(5);
  auto* start = static_cast<std::conditional_t<std::is_const_v<Data>, const char, char>*>(qkv.data_ptr());
  return {start + which * heads * channels * qkv.element_size(), 3 * heads * channels, channels};
}

SequenceAttention make_task(const at::Tensor& qkv, const AxisRows& axis, bool causal, bool qk_norm,
                            std::optional<double> scale) {
  const int64_t channels = qkv.size(5);
  return {.dtype = qkv.scalar_type(),
          .heads = qkv.size(4),
          .head_dim = channels,
          .scale = scale.value_or(1 / std::sqrt(static_cast<double>(channels))),
          .qk_norm = qk_norm,
          .count = static_cast<int64_t>(axis.offsets.size()) - 1,
          .offsets = axis.offsets.data(),
          .rows = axis.rows.data(),
          .limits = causal ? axis.limits.data() : nullptr,
          .q = part<const void>(qkv, 0),
          .k = part<const void>(qkv, 1),
          .v = part<const void>(qkv, 2)};
}

at::Tensor forward(const at::Tensor& qkv_, std::string_view axis, bool causal, bool qk_norm,
                   std::optional<double> scale) {
  check_st_attention(qkv_, axis);
  const auto qkv = qkv_.contiguous();
  const int64_t heads = qkv.size(4), channels = qkv.size(5);
  auto out = at::empty({qkv.size(0), qkv.size(1), qkv.size(2), heads * channels}, qkv.options());
  const AxisRows rows(qkv.sizes(), axis == "time", causal);
  attend_sequences(make_task(qkv, rows, causal, qk_norm, scale),
                   HeadRows<void>{out.data_ptr(), heads * channels, channels});
  return out;
}

at::Tensor backward(const at::Tensor& grad_, const at::Tensor& qkv_, std::string_view axis, bool causal,
                    bool qk_norm, std::optional<double> scale) {
  check_st_attention(qkv_, axis);
  const auto qkv = qkv_.contiguous();
  const int64_t heads = qkv.size(4), channels = qkv.size(5);
  const std::vector<int64_t> expected{qkv.size(0), qkv.size(1), qkv.size(2), heads * channels};
  TORCH_CHECK_VALUE(grad_.sizes() == expected && grad_.scalar_type() == qkv.scalar_type(),
                    "genie::_st_attention_backward: grad must be ", expected, " of ", qkv.scalar_type(),
                    ", got ", grad_.sizes(), " of ", grad_.scalar_type());
  const auto grad = grad_.contiguous();
  auto grad_qkv = at::empty_like(qkv);
  const AxisRows rows(qkv.sizes(), axis == "time", causal);
  attend_sequences_backward(make_task(qkv, rows, causal, qk_norm, scale),
                            HeadRows<const void>{grad.data_ptr(), heads * channels, channels},
                            part<void>(grad_qkv, 0), part<void>(grad_qkv, 1), part<void>(grad_qkv, 2));
  return grad_qkv;
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, CPU, m) {
  m.impl("st_attention", forward);
  m.impl("_st_attention_backward", backward);
}

}  // namespace genie::ops
