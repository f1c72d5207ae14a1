#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

namespace genie::data {

/// The decoded chunks used last, at most `capacity` bytes of them, shared by all threads. A chunk larger than
/// that is not kept.
class ChunkCache {
 public:
  using Bytes = std::shared_ptr<const std::vector<uint8_t>>;

  explicit ChunkCache(size_t capacity) : capacity_(capacity) {}

  /// The chunk, or null.
  Bytes find(int64_t key) {
    const std::lock_guard lock(mutex_);
    const auto found = index_.find(key);
    if (found == index_.end()) return nullptr;
    recent_.splice(recent_.begin(), recent_, found->second);
    return found->second->second;
  }

  void insert(int64_t key, Bytes chunk) {
    if (chunk->size() > capacity_) return;
    const std::lock_guard lock(mutex_);
    if (index_.count(key)) return;  // another thread decoded it meanwhile
    bytes_ += chunk->size();
    recent_.emplace_front(key, std::move(chunk));
    index_[key] = recent_.begin();
    while (bytes_ > capacity_) {
      bytes_ -= recent_.back().second->size();
      index_.erase(recent_.back().first);
      recent_.pop_back();
    }
  }

  size_t bytes() {
    const std::lock_guard lock(mutex_);
    return bytes_;
  }

 private:
  std::mutex mutex_;
  std::list<std::pair<int64_t, Bytes>> recent_;
  std::unordered_map<int64_t, decltype(recent_)::iterator> index_;
  size_t capacity_;
  size_t bytes_ = 0;
};

}  // namespace genie::data
