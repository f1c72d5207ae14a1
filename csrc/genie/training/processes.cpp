#include "genie/training/processes.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>

#include "genie/core/error.h"

namespace genie::training {

struct Processes::Group {
  c10::intrusive_ptr<c10d::ProcessGroup> processes;
};

Processes::Processes() = default;

Processes::Processes(const std::string& group_name, const c10::Device& device) : device_(device) {
  if (group_name.empty()) return;
  try {
    group_ = std::make_shared<Group>(Group{c10d::resolve_process_group(group_name)});
  } catch (const c10::Error&) {
    throw Error(concat("there is no process group '", group_name,
                       "'; call torch.distributed.init_process_group first"));
  }
  rank_ = group_->processes->getRank();
  size_ = group_->processes->getSize();
}

c10d::ProcessGroup* Processes::group() const { return group_ ? group_->processes.get() : nullptr; }

void Processes::sum(at::Tensor& tensor) const {
  if (alone()) return;
  std::vector<at::Tensor> tensors = {tensor};
  group_->processes->allreduce(tensors)->wait();
}

std::vector<double> Processes::sum(const std::vector<double>& values) const {
  if (alone()) return values;
  at::Tensor tensor = at::tensor(values, at::kDouble).to(device_);
  sum(tensor);
  tensor = tensor.to(at::kCPU);
  const double* data = tensor.const_data_ptr<double>();
  return {data, data + values.size()};
}

at::Tensor Processes::gather_rows(const at::Tensor& rows) const {
  if (alone()) return rows;
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> mine = {rows.detach().contiguous()};
  std::vector<std::vector<at::Tensor>> all(1);
  for (int64_t i = 0; i < size_; ++i) all[0].push_back(at::empty_like(mine[0]));
  group_->processes->allgather(all, mine)->wait();
  return at::cat(all[0]);
}

void Processes::broadcast(const std::vector<at::Tensor>& tensors, int64_t from) const {
  constexpr size_t kBuffer = size_t{25} << 20;
  if (alone() || tensors.empty()) return;
  at::NoGradGuard no_grad;
  // The buffers' tensors are detached: a parameter is overwritten, not part of a graph.
  std::vector<at::Tensor> detached;
  for (const at::Tensor& tensor : tensors) detached.push_back(tensor.detach());
  c10d::broadcast_coalesced(group_->processes, detached, kBuffer, static_cast<int>(from));
}

}  // namespace genie::training
