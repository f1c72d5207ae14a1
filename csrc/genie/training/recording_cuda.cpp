#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/Event.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <optional>

#include "genie/core/error.h"
#include "genie/training/recording.h"

namespace genie::training {
namespace {

class CudaGraph : public Recording {
 public:
  explicit CudaGraph(const c10::Device& device)
      : stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index())) {}

  void rehearse(const Work& work) override {
    const c10::cuda::CUDAStream caller = c10::cuda::getCurrentCUDAStream();
    wait(stream_, caller);
    {
      const c10::cuda::CUDAStreamGuard on_stream(stream_);
      work();
    }
    wait(caller, stream_);
  }

  void record(const Work& work) override {
    check(!graph_, "a CUDA graph is recorded once");
    // Nothing else may be under way: an event of it that the recording came across would become part of it.
    c10::cuda::device_synchronize();
    const c10::cuda::CUDAStreamGuard on_stream(stream_);
    graph_.emplace();
    graph_->capture_begin();
    try {
      work();
    } catch (...) {
      end_after_failure();
      throw;
    }
    graph_->capture_end();
  }

  void replay() override { graph_->replay(); }

 private:
  static void wait(const c10::cuda::CUDAStream& waiting, const c10::cuda::CUDAStream& other) {
    c10::Event event(c10::DeviceType::CUDA);
    event.record(other);
    event.block(waiting);
  }

  // The error that ended the work is the one to be told, not that of a recording cut short.
  void end_after_failure() noexcept {
    try {
      graph_->capture_end();
    } catch (...) {
    }
    graph_.reset();
  }

  c10::cuda::CUDAStream stream_;
  std::optional<at::cuda::CUDAGraph> graph_;
};

[[maybe_unused]] const bool offered = [] {
  offer_cuda_graphs([](const c10::Device& device) -> std::unique_ptr<Recording> {
    return std::make_unique<CudaGraph>(device);
  });
  return true;
}();

}  // namespace
}  // namespace genie::training
