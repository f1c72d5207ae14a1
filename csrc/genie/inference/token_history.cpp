#include "genie/inference/token_history.h"

#include <ATen/ATen.h>

#include <vector>

namespace genie::inference {

void TokenHistory::trim() {
  while (static_cast<int64_t>(frames_.size()) > capacity_) {
    frames_.pop_front();
    ++first_;
  }
}

at::Tensor TokenHistory::tokens(int64_t begin, int64_t end) const {
  std::vector<at::Tensor> parts;
  for (int64_t t = begin; t < end; ++t) parts.push_back(frames_.at(t - first_).tokens);
  return at::stack(parts, 1);
}

at::Tensor TokenHistory::leading(int64_t begin, int64_t end) const {
  std::vector<at::Tensor> parts;
  for (int64_t t = begin; t < end; ++t) parts.push_back(frames_.at(t - first_).leading);
  return at::stack(parts, 1);
}

void TokenHistory::restore(int64_t first, const at::Tensor& tokens, const at::Tensor& leading) {
  first_ = first;
  frames_.clear();
  for (int64_t t = 0; t < tokens.size(1); ++t)
    push(tokens.select(1, t).contiguous(), leading.select(1, t).contiguous());
}

}  // namespace genie::inference
