#include "genie/nn/temporal_cache.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace genie::nn {
namespace {

constexpr int64_t kKeysTime = 2;    // (B,N,T,H,d)
constexpr int64_t kMemoryTime = 1;  // (B,T,...)

}  // namespace

TemporalCache::TemporalCache(int64_t num_layers, int64_t window, int64_t history)
    : layers_(num_layers), window_(window), slots_(window + history) {
  TORCH_CHECK(window >= 1 && history >= 0, "TemporalCache: window must be at least 1 and history 0, got ",
              window, " and ", history);
}

void TemporalCache::commit(int64_t frames) {
  length_ += frames;
  reached_ = std::max(reached_, length_);
}

bool TemporalCache::can_truncate(int64_t frames) const {
  if (frames < 0 || frames > length_) return false;
  const int64_t oldest = std::max<int64_t>(0, reached_ + 1 - slots_);  // one slot may be a frame under way
  return frames == 0 || std::max<int64_t>(0, frames - window_ + 1) >= oldest;
}

void TemporalCache::truncate(int64_t frames) {
  TORCH_CHECK(can_truncate(frames), "TemporalCache: cannot go back to ", frames, " of ", length_, " frames, ",
              slots_, " are kept and ", window_, " seen");
  length_ = frames;
  if (frames == 0) clear();
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

void TemporalCache::put(at::Tensor& ring, const at::Tensor& frames, int64_t time_axis) {
  std::vector<int64_t> shape = frames.sizes().vec();
  const int64_t count = shape[time_axis];
  TORCH_CHECK(count == 1 || (length_ == 0 && count <= slots_), "TemporalCache: ", count,
              " frames at once need an empty cache of that length, it holds ", length_, " of ", slots_);
  shape[time_axis] = slots_;
  if (!ring.defined() || ring.sizes() != shape || ring.scalar_type() != frames.scalar_type()) {
    TORCH_CHECK(length_ == 0, "TemporalCache: shape or dtype changed with ", length_, " frames in the cache");
    ring = at::empty(shape, frames.options().memory_format(c10::nullopt));
  }
  ring.narrow(time_axis, slot(length_), count).copy_(frames);
}

at::Tensor TemporalCache::in_order(const at::Tensor& ring, int64_t time_axis, int64_t end) const {
  const int64_t first = slot(first_seen()), count = end - first_seen(),
                head = std::min(count, slots_ - first);
  if (head == count) return ring.narrow(time_axis, first, count);
  return at::cat({ring.narrow(time_axis, first, head), ring.narrow(time_axis, 0, count - head)}, time_axis);
}

void TemporalCache::write(int64_t layer, const at::Tensor& keys, const at::Tensor& values) {
  KeysValues& store = layers_.at(layer);
  put(store.keys, keys.transpose(1, 2), kKeysTime);
  put(store.values, values.transpose(1, 2), kKeysTime);
}

TemporalCache::KeysValues TemporalCache::seen(int64_t layer) const {
  const KeysValues& store = layers_.at(layer);
  return {in_order(store.keys, kKeysTime, length_ + 1), in_order(store.values, kKeysTime, length_ + 1)};
}

const TemporalCache::KeysValues& TemporalCache::ring(int64_t layer, at::IntArrayRef shape,
                                                     const at::TensorOptions& options) {
  KeysValues& store = layers_.at(layer);
  const std::vector<int64_t> wanted = {shape[0], shape[1], slots_, shape[2], shape[3]};
  if (!store.keys.defined() || store.keys.sizes() != wanted ||
      store.keys.scalar_type() != options.dtype().toScalarType()) {
    TORCH_CHECK(length_ == 0, "TemporalCache: shape or dtype changed with ", length_, " frames in the cache");
    store = {at::empty(wanted, options), at::empty(wanted, options)};
  }
  return store;
}

at::Tensor TemporalCache::write_memory(size_t kind, const at::Tensor& memory) {
  if (memories_.size() <= kind) memories_.resize(kind + 1);
  put(memories_[kind], memory, kMemoryTime);
  return in_order(memories_[kind], kMemoryTime, length_ + memory.size(kMemoryTime));
}

std::vector<at::Tensor> TemporalCache::tensors() const {
  std::vector<at::Tensor> all;
  for (const auto& layer : layers_) all.insert(all.end(), {layer.keys, layer.values});
  all.insert(all.end(), memories_.begin(), memories_.end());
  return all;
}

void TemporalCache::restore(const std::vector<at::Tensor>& tensors, int64_t length, int64_t reached) {
  const size_t of_layers = 2 * layers_.size();
  TORCH_CHECK_VALUE(tensors.size() >= of_layers, "TemporalCache: expected at least ", of_layers,
                    " tensors, got ", tensors.size());
  length_ = reached_ = reached;
  TORCH_CHECK_VALUE(can_truncate(length), "TemporalCache: ", length, " frames after there were ", reached,
                    ", with ", slots_, " kept and ", window_, " seen");
  const auto check_ring = [&](const at::Tensor& ring, int64_t time_axis) {
    TORCH_CHECK_VALUE(!ring.defined() || (ring.dim() > time_axis && ring.size(time_axis) == slots_),
                      "TemporalCache: expected memory of ", slots_, " frames, got ", ring.sizes());
  };
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const at::Tensor &keys = tensors[2 * layer], &values = tensors[2 * layer + 1];
    check_ring(keys, kKeysTime);
    check_ring(values, kKeysTime);
    TORCH_CHECK_VALUE(keys.defined() == values.defined() && (keys.defined() || length == 0),
                      "TemporalCache: layer ", layer, " has no keys and values of the ", length, " frames");
    TORCH_CHECK_VALUE(
        !keys.defined() || (keys.sizes() == values.sizes() && keys.scalar_type() == values.scalar_type()),
        "TemporalCache: keys and values of layer ", layer, " differ in shape or type");
    layers_[layer] = {keys, values};
  }
  memories_.assign(tensors.begin() + static_cast<std::ptrdiff_t>(of_layers), tensors.end());
  for (const at::Tensor& memory : memories_) check_ring(memory, kMemoryTime);
  length_ = length;
}

}  // namespace genie::nn
