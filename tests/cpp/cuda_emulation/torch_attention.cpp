// Stands in for torch's own CUDA kernels, segment by segment in plain operations: what surrounds them can be
// tested.
#include "genie/ops/cuda/torch_attention.h"

#include <ATen/ATen.h>

#include <limits>
#include <utility>
#include <vector>

namespace genie::ops {
namespace {

struct Weights {
  at::Tensor q, k, v, weights;  // of a segment, (heads, tokens, ...) in double
};

std::vector<std::pair<int64_t, int64_t>> ranges(const Segments& segments) {
  TORCH_CHECK(segments.offsets.scalar_type() == at::kInt, "torch's kernels take int32 offsets");
  const at::Tensor offsets = segments.offsets.to(at::kLong);
  std::vector<std::pair<int64_t, int64_t>> result;
  for (int64_t s = 0; s + 1 < offsets.numel(); ++s) {
    const int64_t first = offsets[s].item<int64_t>(), count = offsets[s + 1].item<int64_t>() - first;
    TORCH_CHECK(count <= segments.longest, "a segment is longer than said");
    result.emplace_back(first, count);
  }
  return result;
}

at::Tensor heads_of(const at::Tensor& x, std::pair<int64_t, int64_t> range) {
  TORCH_CHECK(x.stride(2) == 1, "torch's kernels need channels side by side");
  return x.narrow(0, range.first, range.second).to(at::kDouble).transpose(0, 1);
}

Weights weights_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Segments& segments,
                   double scale, std::pair<int64_t, int64_t> range) {
  Weights result{heads_of(q, range), heads_of(k, range), heads_of(v, range), {}};
  at::Tensor scores = at::matmul(result.q, result.k.transpose(1, 2)) * scale;
  if (segments.causal) {
    const at::Tensor later = at::ones({range.second, range.second}, at::kBool).triu(1);
    scores = scores.masked_fill(later, -std::numeric_limits<double>::infinity());
  }
  result.weights = scores.softmax(-1);
  return result;
}

}  // namespace

bool torch_attention_takes(const at::Tensor& q, double scale) {
  return q.scalar_type() != at::kDouble && q.size(-1) % 8 == 0 && scale > 0;
}

at::Tensor torch_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const Segments& segments, double scale) {
  at::Tensor out = at::empty(q.sizes(), q.options());
  for (const auto& range : ranges(segments)) {
    const Weights x = weights_of(q, k, v, segments, scale, range);
    out.narrow(0, range.first, range.second).copy_(at::matmul(x.weights, x.v).transpose(0, 1));
  }
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> torch_attention_backward(
    const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const Segments& segments, double scale) {
  const auto empty = [&] { return at::empty(q.sizes(), q.options()); };
  std::tuple<at::Tensor, at::Tensor, at::Tensor> gradients{empty(), empty(), empty()};
  for (const auto& range : ranges(segments)) {
    const Weights x = weights_of(q, k, v, segments, scale, range);
    const at::Tensor upstream = heads_of(grad, range);
    const at::Tensor to_weights = at::matmul(upstream, x.v.transpose(1, 2));
    const at::Tensor to_scores = x.weights * (to_weights - (x.weights * to_weights).sum(-1, true)) * scale;
    const auto put = [&](const at::Tensor& target, const at::Tensor& value) {
      target.narrow(0, range.first, range.second).copy_(value.transpose(0, 1));
    };
    put(std::get<0>(gradients), at::matmul(to_scores, x.k));
    put(std::get<1>(gradients), at::matmul(to_scores.transpose(1, 2), x.q));
    put(std::get<2>(gradients), at::matmul(x.weights.transpose(1, 2), upstream));
  }
  return gradients;
}

}  // namespace genie::ops
