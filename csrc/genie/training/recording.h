#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace genie::training {

/// A sequence of operations that is recorded once and then repeated as a whole, on the same tensors: what it
/// reads and writes keeps its place in memory.
class Recording {
 public:
  using Work = std::function<void()>;

  virtual ~Recording() = default;
  /// Does the work in the way it is recorded in, without recording it: before it is recorded, libraries have
  /// to have made what they make at first use.
  virtual void rehearse(const Work& work) = 0;
  /// Records the work, whose results don't exist before the first replay(). Nothing in it may wait for the
  /// device. Once.
  virtual void record(const Work& work) = 0;
  /// Repeats it, in order with what the caller does before and after.
  virtual void replay() = 0;
};

/// A recording as a CUDA graph, of a device. It was compiled and linked, and never run on a GPU
/// (docs/performance.md). Throws Error where this build has no CUDA.
std::unique_ptr<Recording> make_cuda_graph(const c10::Device& device);

/// Whether this build has CUDA graphs.
bool cuda_graphs_compiled();

/// What the CUDA part of a build offers make_cuda_graph.
using CudaGraphMaker = std::unique_ptr<Recording> (*)(const c10::Device& device);
void offer_cuda_graphs(CudaGraphMaker maker);

}  // namespace genie::training
