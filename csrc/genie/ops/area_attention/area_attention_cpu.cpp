#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <vector>

#include "genie/ops/area_attention/area_attention.h"
#include "genie/ops/sequence_attention/sequence_attention.h"

namespace genie::ops {
namespace {

/// The segments' tokens. Where frames make attention causal, a segment's tokens are taken in the order of
/// their frames, so that what a token sees is a prefix.
struct Segments {
  std::vector<int64_t> offsets, rows, limits;

  Segments(const at::Tensor& cu_seqlens, int64_t total, int64_t max_seqlen,
           const std::optional<at::Tensor>& frame_ids)
      : rows(static_cast<size_t>(total)) {
    const auto starts = cu_seqlens.to(at::kLong).contiguous();
    offsets.assign(starts.const_data_ptr<int64_t>(), starts.const_data_ptr<int64_t>() + starts.numel());
    TORCH_CHECK_VALUE(offsets.front() == 0 && offsets.back() == total && std::ranges::is_sorted(offsets),
                      "genie::area_attention: cu_seqlens must rise from 0 to the number of tokens ", total,
                      ", got ", offsets.front(), " .. ", offsets.back(),
                      std::ranges::is_sorted(offsets) ? "" : " with a step down");
    for (size_t s = 0; s + 1 < offsets.size(); ++s) {
      TORCH_CHECK_VALUE(offsets[s + 1] - offsets[s] <= max_seqlen, "genie::area_attention: segment ", s,
                        " holds ", offsets[s + 1] - offsets[s], " tokens, more than max_seqlen ", max_seqlen);
    }
    std::iota(rows.begin(), rows.end(), 0);
    if (frame_ids) order_by_frame(*frame_ids);
  }

 private:
  void order_by_frame(const at::Tensor& frame_ids) {
    const auto tensor = frame_ids.to(at::kLong).contiguous();
    const int64_t* frames = tensor.const_data_ptr<int64_t>();
    limits.resize(rows.size());
    for (size_t s = 0; s + 1 < offsets.size(); ++s) {
      const auto begin = rows.begin() + offsets[s], end = rows.begin() + offsets[s + 1];
      std::stable_sort(begin, end, [&](int64_t a, int64_t b) { return frames[a] < frames[b]; });
      for (auto first = begin; first != end;) {
        const auto next =
            std::find_if(first, end, [&](int64_t row) { return frames[row] != frames[*first]; });
        std::fill(limits.begin() + (first - rows.begin()), limits.begin() + (next - rows.begin()),
                  next - begin);
        first = next;
      }
    }
  }
};

/// The tensor itself if its channels lie side by side, else a copy.
at::Tensor dense_channels(const at::Tensor& x) { return x.stride(2) == 1 ? x : x.contiguous(); }

HeadRows<const void> input(const at::Tensor& x) { return {x.const_data_ptr(), x.stride(0), x.stride(1)}; }
HeadRows<void> output(const at::Tensor& x) { return {x.data_ptr(), x.stride(0), x.stride(1)}; }

SequenceAttention make_task(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const Segments& segments, std::optional<double> scale) {
  return {.dtype = q.scalar_type(),
          .heads = q.size(1),
          .head_dim = q.size(2),
          .scale = scale.value_or(1 / std::sqrt(static_cast<double>(q.size(2)))),
          .qk_norm = false,
          .count = static_cast<int64_t>(segments.offsets.size()) - 1,
          .offsets = segments.offsets.data(),
          .rows = segments.rows.data(),
          .limits = segments.limits.empty() ? nullptr : segments.limits.data(),
          .q = input(q),
          .k = input(k),
          .v = input(v)};
}

at::Tensor forward(const at::Tensor& q_, const at::Tensor& k_, const at::Tensor& v_,
                   const at::Tensor& cu_seqlens, int64_t max_seqlen, std::optional<double> scale,
                   const std::optional<at::Tensor>& frame_ids) {
  check_area_attention(q_, k_, v_, cu_seqlens, frame_ids);
  const auto q = dense_channels(q_), k = dense_channels(k_), v = dense_channels(v_);
  const Segments segments(cu_seqlens, q.size(0), max_seqlen, frame_ids);
  auto out = at::empty(q.sizes(), q.options());
  attend_sequences(make_task(q, k, v, segments, scale), output(out));
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& grad_, const at::Tensor& q_,
                                                        const at::Tensor& k_, const at::Tensor& v_,
                                                        const at::Tensor& cu_seqlens, int64_t max_seqlen,
                                                        std::optional<double> scale,
                                                        const std::optional<at::Tensor>& frame_ids) {
  check_area_attention(q_, k_, v_, cu_seqlens, frame_ids);
  TORCH_CHECK_VALUE(grad_.sizes() == q_.sizes() && grad_.scalar_type() == q_.scalar_type(),
                    "genie::_area_attention_backward: grad must be ", q_.sizes(), " of ", q_.scalar_type(),
                    ", got ", grad_.sizes(), " of ", grad_.scalar_type());
  const auto q = dense_channels(q_), k = dense_channels(k_), v = dense_channels(v_),
             grad = dense_channels(grad_);
  const Segments segments(cu_seqlens, q.size(0), max_seqlen, frame_ids);
  auto grad_q = at::empty(q.sizes(), q.options());
  auto grad_k = at::empty(q.sizes(), q.options());
  auto grad_v = at::empty(q.sizes(), q.options());
  attend_sequences_backward(make_task(q, k, v, segments, scale), input(grad), output(grad_q), output(grad_k),
                            output(grad_v));
  return {grad_q, grad_k, grad_v};
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, CPU, m) {
  m.impl("area_attention", forward);
  m.impl("_area_attention_backward", backward);
}

}  // namespace genie::ops
