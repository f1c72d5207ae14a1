#include "genie/inference/frame_decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace genie::inference {

FrameDecoder::FrameDecoder(models::VideoTokenizer tokenizer, int64_t history)
    : tokenizer_(std::move(tokenizer)), cache_(tokenizer_->make_decoder_cache(history)) {}

int64_t FrameDecoder::window_begin(int64_t frame) const {
  if (tokenizer_->config().decoder.rotary_time()) return 0;
  const int64_t window = tokenizer_->num_frames(), hop = std::max<int64_t>(1, window / 2);
  return frame < window ? 0 : (frame - window + hop) / hop * hop;
}

at::Tensor FrameDecoder::decode(const TokenHistory& history, int64_t next) {
  std::vector<at::Tensor> parts;
  while (next < history.length()) {
    const int64_t begin = window_begin(next);
    if (cache_begin_ != begin || cache_.length() > next - begin) {
      const int64_t kept = next - begin;
      if (cache_begin_ == begin && cache_.can_truncate(kept)) {
        cache_.truncate(kept);
      } else {
        cache_.clear();
        cache_begin_ = begin;
      }
    }
    const int64_t first = cache_begin_ + cache_.length();
    const int64_t end =
        cache_.length() == 0 ? std::min(history.length(), first + tokenizer_->num_frames()) : first + 1;
    const at::Tensor video = tokenizer_->decode_cached(history.tokens(first, end), cache_);
    if (end <= next) continue;  // context that had to be computed again
    parts.push_back(video.narrow(1, next - first, end - next));
    next = end;
  }
  return at::cat(parts, 1);
}

void FrameDecoder::restore(const CacheState& state, int64_t frames) {
  TORCH_CHECK_VALUE(state.begin >= 0 && state.length >= 0 && state.begin <= frames - state.length,
                    "a decoder's cache of ", state.length, " frames from ", state.begin, " on, of ", frames);
  cache_begin_ = state.begin;
  cache_.restore(state.tensors, state.length, state.reached);
}

FrameDecoder FrameDecoder::fork() const {
  FrameDecoder copy(*this);
  copy.cache_ = cache_.clone();
  return copy;
}

}  // namespace genie::inference
