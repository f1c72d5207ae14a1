#include "genie/nn/frame_area_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "genie/ops/area_attention/area_attention.h"

namespace genie::nn {

FrameAreaAttentionImpl::FrameAreaAttentionImpl(const FrameAreaAttentionOptions& options)
    : RoPEAreaAttentionImpl(options.area),
      rows_(options.rows),
      columns_(options.columns),
      num_frames_(options.num_frames),
      endless_(options.endless),
      areas_per_frame_(std::min(splits().spatial, options.rows)),
      temporal_areas_(std::min(splits().temporal, options.num_frames)) {
  TORCH_CHECK_VALUE(rows_ >= 1 && columns_ >= 1 && num_frames_ >= 1,
                    "FrameAreaAttention: rows, columns and num_frames must be at least 1, got ", rows_, ", ",
                    columns_, ", ", num_frames_);
}

int64_t FrameAreaAttentionImpl::first_row(int64_t area) const {
  return area >= areas_per_frame_ ? rows_ : area * std::max<int64_t>(1, rows_ / splits().spatial);
}

int64_t FrameAreaAttentionImpl::temporal_area(int64_t frame) const {
  const int64_t area = frame / std::max<int64_t>(1, num_frames_ / splits().temporal);
  return endless_ ? area : std::min(area, temporal_areas_ - 1);
}

void FrameAreaAttentionImpl::check_input(const at::Tensor& x, int64_t offset) const {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.size(2) >= rows_ * columns_ && x.size(3) == options().dim,
                    "FrameAreaAttention: expected (B,T,N,", options().dim, ") with N >= ", rows_ * columns_,
                    ", got ", x.sizes());
  TORCH_CHECK_VALUE(endless_ || offset + x.size(1) <= num_frames_, "FrameAreaAttention: ", offset + x.size(1),
                    " frames, but the areas divide clips of ", num_frames_);
}

FrameAreaAttentionImpl::Layout FrameAreaAttentionImpl::layout(int64_t frames, int64_t further,
                                                              const at::Device& device) {
  const std::lock_guard lock(layouts_mutex_);
  Layout& result = layouts_[{frames, further}];
  if (result.source.defined() && result.source.device() == device) return result;
  const int64_t patches = rows_ * columns_, tokens = patches + further;
  std::vector<int64_t> source, frame, starts = {0};
  std::vector<int64_t> patch_places(frames * patches), further_places(frames * further * areas_per_frame_);
  for (int64_t first = 0; first < frames;) {
    int64_t end = first;
    while (end < frames && temporal_area(end) == temporal_area(first)) ++end;
    for (int64_t area = 0; area < areas_per_frame_; ++area) {
      for (int64_t t = first; t < end; ++t) {
        const auto add = [&](int64_t token, int64_t& place) {
          place = static_cast<int64_t>(source.size());
          source.push_back(t * tokens + token);
          frame.push_back(t);
        };
        for (int64_t n = first_row(area) * columns_; n < first_row(area + 1) * columns_; ++n) {
          add(n, patch_places[t * patches + n]);
        }
        for (int64_t e = 0; e < further; ++e) {
          add(patches + e, further_places[(t * further + e) * areas_per_frame_ + area]);
        }
      }
      starts.push_back(static_cast<int64_t>(source.size()));
    }
    first = end;
  }
  const auto on_device = [&](const std::vector<int64_t>& values) {
    return at::tensor(values, at::kLong).to(device);
  };
  result = {on_device(source), on_device(frame), on_device(starts), on_device(patch_places),
            on_device(further_places)};
  return result;
}

RoPEAttentionImpl::Heads FrameAreaAttentionImpl::project_frames(const at::Tensor& x, int64_t offset) {
  const int64_t frames = x.size(1), patches = rows_ * columns_, further = x.size(2) - patches;
  const auto options = x.options().dtype(at::kLong);
  // Further tokens stand at row and column 0, whose angle is 0.
  const at::Tensor in_frame = at::cat({at::arange(patches, options), at::zeros({further}, options)});
  const at::Tensor ids = (at::arange(offset, offset + frames, options) * patches).unsqueeze(1) + in_frame;
  return project(x.flatten(1, 2), ids.flatten(), rows_, columns_);
}

at::Tensor FrameAreaAttentionImpl::attend(const Heads& heads, int64_t frames, bool causal) {
  const int64_t batch = heads.q.size(0), patches = rows_ * columns_,
                further = heads.q.size(1) / frames - patches;
  const Layout areas = layout(frames, further, heads.q.device());
  const int64_t length = areas.source.size(0);
  const Heads sorted{heads.q.index_select(1, areas.source), heads.k.index_select(1, areas.source),
                     heads.v.index_select(1, areas.source)};
  at::Tensor out;
  if (fused(heads.q, std::nullopt)) {
    const at::Tensor sample = at::arange(batch, areas.source.options()).unsqueeze(1) * length;
    const int64_t count = areas.cu_seqlens.size(0) - 1;
    const at::Tensor starts = at::cat({(areas.cu_seqlens.narrow(0, 0, count) + sample).flatten(),
                                       at::full({1}, batch * length, areas.source.options())});
    const auto order = causal ? std::optional(areas.frame.repeat({batch})) : std::nullopt;
    out = ops::area_attention(sorted.q.flatten(0, 1), sorted.k.flatten(0, 1), sorted.v.flatten(0, 1), starts,
                              length, scale_, order)
              .unflatten(0, {batch, length});
  } else {
    const at::Tensor area = at::bucketize(at::arange(length, areas.source.options()),
                                          areas.cu_seqlens.narrow(0, 1, areas.cu_seqlens.size(0) - 1),
                                          /*out_int32=*/false, /*right=*/true);
    at::Tensor visible = area.unsqueeze(1) == area.unsqueeze(0);
    if (causal) visible = visible & (areas.frame.unsqueeze(0) <= areas.frame.unsqueeze(1));
    out = attend_dense(sorted, visible.unsqueeze(0).unsqueeze(0), std::nullopt);
  }
  const at::Tensor patch_results = out.index_select(1, areas.patches).unflatten(1, {frames, patches});
  if (further == 0) return patch_results;
  const at::Tensor further_results =
      out.index_select(1, areas.further).unflatten(1, {frames, further, areas_per_frame_}).mean(3);
  return at::cat({patch_results, further_results}, 2);
}

at::Tensor FrameAreaAttentionImpl::forward(const at::Tensor& x, bool causal) {
  check_input(x, 0);
  return merge(attend(project_frames(x, 0), x.size(1), causal));
}

at::Tensor FrameAreaAttentionImpl::attend_area(const Heads& heads, const TemporalCache::KeysValues& past,
                                               int64_t frame, int64_t area) const {
  const int64_t patches = rows_ * columns_, further = heads.q.size(1) - patches;
  const int64_t begin = first_row(area) * columns_, count = first_row(area + 1) * columns_ - begin;
  int64_t first = frame;  // of the temporal area
  while (first > 0 && temporal_area(first - 1) == temporal_area(frame)) --first;
  const at::Tensor q =
      at::cat({heads.q.narrow(1, begin, count), heads.q.narrow(1, patches, further)}, 1).transpose(1, 2);
  // (B,N,T,H,d) to (B,H,tokens of the area,d); T ends with this frame.
  const auto seen = [&](const at::Tensor& t) {
    const int64_t frames = frame + 1 - first;
    const at::Tensor recent = t.narrow(2, t.size(2) - frames, frames);
    return at::cat({recent.narrow(1, begin, count), recent.narrow(1, patches, further)}, 1)
        .flatten(1, 2)
        .transpose(1, 2);
  };
  return at::scaled_dot_product_attention(q, seen(past.keys), seen(past.values), {}, 0.0, false, scale_)
      .transpose(1, 2);
}

at::Tensor FrameAreaAttentionImpl::forward_cached(const at::Tensor& x, TemporalCache& cache, int64_t layer) {
  const int64_t offset = cache.length(), frames = x.size(1), tokens = x.size(2), patches = rows_ * columns_;
  check_input(x, offset);
  TORCH_CHECK(frames == 1 || offset == 0, "FrameAreaAttention: ", frames,
              " new frames at once need an empty cache, it holds ", offset);
  const Heads heads = project_frames(x, offset);
  cache.write(layer, heads.k.unflatten(1, {frames, tokens}), heads.v.unflatten(1, {frames, tokens}));
  if (frames > 1) return merge(attend(heads, frames, /*causal=*/true));
  const auto past = cache.seen(layer);
  std::vector<at::Tensor> patch_results;
  at::Tensor further_results;
  for (int64_t area = 0; area < areas_per_frame_; ++area) {
    const at::Tensor out = attend_area(heads, past, offset, area);
    const int64_t count = out.size(1) - (tokens - patches);
    patch_results.push_back(out.narrow(1, 0, count));
    const at::Tensor further = out.narrow(1, count, tokens - patches);
    further_results = further_results.defined() ? further_results + further : further;
  }
  patch_results.push_back(further_results / static_cast<double>(areas_per_frame_));
  return merge(at::cat(patch_results, 1)).unsqueeze(1);
}

}  // namespace genie::nn
