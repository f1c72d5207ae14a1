#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <optional>
#include <string>

#include "genie/nn/rebindable.h"

namespace genie::nn {

/// Learned embedding of a token's place in the frame's 2-D grid: a table for rows plus one for columns.
class SpatialPositionalEmbeddingImpl : public torch::nn::Module, public Rebindable {
 public:
  SpatialPositionalEmbeddingImpl(int64_t rows, int64_t columns, int64_t dim);
  /// The table (rows*columns, dim), row by row.
  at::Tensor table() const;
  /// x (B,T,N,dim) with N = rows*columns, plus the table.
  at::Tensor forward(const at::Tensor& x);
  void rebind(const std::string& name, const at::Tensor& tensor) override;

 private:
  at::Tensor row_, column_;
};
TORCH_MODULE(SpatialPositionalEmbedding);

/// Learned embedding of a frame's place in the window.
class TemporalPositionalEmbeddingImpl : public torch::nn::Module, public Rebindable {
 public:
  TemporalPositionalEmbeddingImpl(int64_t max_frames, int64_t dim);
  /// Rows offset .. offset + frames - 1 of the table, (frames, dim).
  at::Tensor table(int64_t frames, int64_t offset = 0) const;
  /// x (B,T,N,dim) plus the first T rows of the table, starting at `offset`.
  at::Tensor forward(const at::Tensor& x, int64_t offset = 0);
  void rebind(const std::string& name, const at::Tensor& tensor) override;

 private:
  at::Tensor frame_;
};
TORCH_MODULE(TemporalPositionalEmbedding);

/// Spatial and temporal embedding together: x (B,T,N,dim) plus both. Without `max_frames` the spatial one
/// alone.
class CombinedPositionalEmbeddingImpl : public torch::nn::Module {
 public:
  CombinedPositionalEmbeddingImpl(std::optional<int64_t> max_frames, int64_t rows, int64_t columns,
                                  int64_t dim);
  at::Tensor forward(const at::Tensor& x, int64_t frame_offset = 0);

 private:
  SpatialPositionalEmbedding spatial_{nullptr};
  TemporalPositionalEmbedding temporal_{nullptr};
};
TORCH_MODULE(CombinedPositionalEmbedding);

}  // namespace genie::nn
