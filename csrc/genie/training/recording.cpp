#include "genie/training/recording.h"

#include "genie/core/error.h"

namespace genie::training {
namespace {

// Set while the library is loaded, in builds with CUDA.
constinit CudaGraphMaker maker = nullptr;

}  // namespace

bool cuda_graphs_compiled() { return maker != nullptr; }

void offer_cuda_graphs(CudaGraphMaker offered) { maker = offered; }

std::unique_ptr<Recording> make_cuda_graph(const c10::Device& device) {
  check(maker != nullptr,
        "training.cuda_graph: this build of genie_cpp has no CUDA part; build it with a CUDA torch and nvcc "
        "(docs/development.md), or set training.cuda_graph=false");
  return maker(device);
}

}  // namespace genie::training
