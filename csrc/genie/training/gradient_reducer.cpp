#include "genie/training/gradient_reducer.h"

#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/comm.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <algorithm>
#include <tuple>
#include <vector>

namespace genie::training {
namespace {

using Group = c10::intrusive_ptr<c10d::ProcessGroup>;

/// Adds up; the Reducer by itself would take means. (torch's own hook that does this is not exported.)
class SumHook : public c10d::CppCommHookInterface<Group> {
 public:
  using CppCommHookInterface::CppCommHookInterface;
  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    std::vector<at::Tensor> tensors = {bucket.getBufferRef()};
    return state_->allreduce(tensors)->getFuture();
  }
};

/// The Reducer advises against looking for unused parameters where it finds none; which there are depends on
/// the configuration.
class Silence : public c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

}  // namespace

GradientReducer::GradientReducer(const torch::nn::Module& model, const Processes& processes) {
  if (processes.alone()) return;
  std::vector<at::Tensor> parameters;
  for (const at::Tensor& parameter : model.parameters()) {
    if (parameter.requires_grad()) parameters.push_back(parameter);
  }
  // Backward meets the last parameters first.
  auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(
      parameters, {c10d::kDefaultFirstBucketBytes, c10d::kDefaultBucketBytesCap}));
  std::reverse(buckets.begin(), buckets.end());
  const auto group = Group::reclaim_copy(processes.group());
  reducer_ = std::make_unique<c10d::Reducer>(
      parameters, buckets, group, std::vector<bool>(parameters.size(), false), c10d::kDefaultBucketBytesCap,
      /*find_unused_parameters=*/true, /*gradient_as_bucket_view=*/true,
      std::unordered_map<size_t, std::string>(), c10d::kDefaultFirstBucketBytes,
      /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<int64_t>());
  // Sums: each part's loss is already its share of the whole batch's.
  reducer_->register_comm_hook(std::make_unique<SumHook>(group));
}

GradientReducer::~GradientReducer() = default;

void GradientReducer::before_last_backward(const at::Tensor& loss) {
  if (!reducer_) return;
  static Silence silence;
  const c10::WarningUtils::WarningHandlerGuard quiet(&silence);
  reducer_->prepare_for_backward({loss});
}

}  // namespace genie::training
