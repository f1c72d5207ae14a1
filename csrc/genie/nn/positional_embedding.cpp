#include "genie/nn/positional_embedding.h"

#include <ATen/ATen.h>
#include <torch/nn/init.h>

#include "genie/nn/input_check.h"

namespace genie::nn {
namespace {
constexpr double kInitStd = 0.02;
}

SpatialPositionalEmbeddingImpl::SpatialPositionalEmbeddingImpl(int64_t rows, int64_t columns, int64_t dim) {
  TORCH_CHECK_VALUE(rows >= 1 && columns >= 1 && dim >= 1,
                    "SpatialPositionalEmbedding: rows, columns and dim must be at least 1, got ", rows, ", ",
                    columns, ", ", dim);
  row_ = register_parameter("row", at::randn({rows, 1, dim}) * kInitStd);
  column_ = register_parameter("column", at::randn({1, columns, dim}) * kInitStd);
}

at::Tensor SpatialPositionalEmbeddingImpl::table() const { return (row_ + column_).flatten(0, 1); }

at::Tensor SpatialPositionalEmbeddingImpl::forward(const at::Tensor& x) {
  const int64_t places = row_.size(0) * column_.size(1);
  TORCH_CHECK_VALUE(x.dim() == 4 && x.size(2) == places && x.size(3) == row_.size(2),
                    "SpatialPositionalEmbedding: expected (B,T,", places, ",", row_.size(2), "), got ",
                    x.sizes());
  check_dtype_and_device("SpatialPositionalEmbedding", "x", x, row_);
  return x + table();
}

void SpatialPositionalEmbeddingImpl::rebind(const std::string& name, const at::Tensor& tensor) {
  (name == "row" ? row_ : column_) = tensor;
}

TemporalPositionalEmbeddingImpl::TemporalPositionalEmbeddingImpl(int64_t max_frames, int64_t dim) {
  TORCH_CHECK_VALUE(max_frames >= 1 && dim >= 1,
                    "TemporalPositionalEmbedding: max_frames and dim must be at least 1, got ", max_frames,
                    ", ", dim);
  frame_ = register_parameter("frame", at::randn({max_frames, dim}) * kInitStd);
}

at::Tensor TemporalPositionalEmbeddingImpl::table(int64_t frames, int64_t offset) const {
  TORCH_CHECK_VALUE(
      offset >= 0 && frames >= 0 && frames <= frame_.size(0) && offset <= frame_.size(0) - frames,
      "TemporalPositionalEmbedding: ", frames, " frames from number ", offset, " asked for, there are ",
      frame_.size(0), "; use a shorter clip");
  return frame_.narrow(0, offset, frames);
}

at::Tensor TemporalPositionalEmbeddingImpl::forward(const at::Tensor& x, int64_t offset) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.size(3) == frame_.size(1),
                    "TemporalPositionalEmbedding: expected (B,T,N,", frame_.size(1), "), got ", x.sizes());
  check_dtype_and_device("TemporalPositionalEmbedding", "x", x, frame_);
  return x + table(x.size(1), offset).unsqueeze(1);
}

void TemporalPositionalEmbeddingImpl::rebind(const std::string&, const at::Tensor& tensor) {
  frame_ = tensor;
}

CombinedPositionalEmbeddingImpl::CombinedPositionalEmbeddingImpl(std::optional<int64_t> max_frames,
                                                                 int64_t rows, int64_t columns, int64_t dim) {
  spatial_ = register_module("spatial", SpatialPositionalEmbedding(rows, columns, dim));
  if (max_frames) temporal_ = register_module("temporal", TemporalPositionalEmbedding(*max_frames, dim));
}

at::Tensor CombinedPositionalEmbeddingImpl::forward(const at::Tensor& x, int64_t frame_offset) {
  return spatial_->forward(temporal_ ? temporal_->forward(x, frame_offset) : x);
}

}  // namespace genie::nn
