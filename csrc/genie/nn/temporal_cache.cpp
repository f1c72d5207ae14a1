#include "genie/nn/temporal_cache.h"

#include <ATen/ATen.h>

namespace genie::nn {

void TemporalCache::commit(int64_t frames) {
  TORCH_CHECK(frames >= 0 && length_ + frames <= capacity_, "TemporalCache: cannot commit ", frames,
              " frames, ", length_, " of ", capacity_, " are in use");
  length_ += frames;
}

void TemporalCache::truncate(int64_t frames) {
  TORCH_CHECK(frames >= 0 && frames <= length_, "TemporalCache: cannot keep ", frames, " of ", length_,
              " frames");
  length_ = frames;
}

TemporalCache TemporalCache::clone() const {
  TemporalCache copy(*this);
  for (auto& layer : copy.layers_) {
    if (layer.keys.defined()) layer = {layer.keys.clone(), layer.values.clone()};
  }
  for (at::Tensor& memory : copy.memories_) {
    if (memory.defined()) memory = memory.clone();
  }
  return copy;
}

at::Tensor TemporalCache::write_memory(size_t slot, const at::Tensor& memory) {
  const int64_t frames = memory.size(1);
  TORCH_CHECK(length_ + frames <= capacity_, "TemporalCache: ", frames, " frames do not fit behind ", length_,
              " of ", capacity_);
  if (memories_.size() <= slot) memories_.resize(slot + 1);
  at::Tensor& store = memories_[slot];
  if (!store.defined() || store.size(0) != memory.size(0)) {
    TORCH_CHECK(length_ == 0, "TemporalCache: batch size changed with ", length_, " frames in the cache");
    std::vector<int64_t> shape = memory.sizes().vec();
    shape[1] = capacity_;
    store = at::empty(shape, memory.options());
  }
  store.narrow(1, length_, frames).copy_(memory);
  return store.narrow(1, 0, length_ + frames);
}

TemporalCache::KeysValues TemporalCache::write(int64_t layer, const at::Tensor& keys,
                                               const at::Tensor& values) {
  const int64_t batch = keys.size(0), frames = keys.size(1), tokens = keys.size(2), heads = keys.size(3),
                width = keys.size(4);
  TORCH_CHECK(length_ + frames <= capacity_, "TemporalCache: ", frames, " frames do not fit behind ", length_,
              " of ", capacity_);
  KeysValues& store = layers_.at(layer);
  if (!store.keys.defined() || store.keys.size(0) != batch ||
      store.keys.scalar_type() != keys.scalar_type()) {
    TORCH_CHECK(length_ == 0, "TemporalCache: batch size or dtype changed with ", length_,
                " frames in the cache");
    store.keys = at::empty({batch, tokens, heads, capacity_, width}, keys.options());
    store.values = at::empty_like(store.keys);
  }
  store.keys.narrow(3, length_, frames).copy_(keys.permute({0, 2, 3, 1, 4}));
  store.values.narrow(3, length_, frames).copy_(values.permute({0, 2, 3, 1, 4}));
  return {store.keys.narrow(3, 0, length_ + frames), store.values.narrow(3, 0, length_ + frames)};
}

}  // namespace genie::nn
