#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace c10d {
class ProcessGroup;
}

namespace genie::training {

/// The processes that train one model together, alone by default. All of them make the same calls in the same
/// order. A call throws when another process has gone.
class Processes {
 public:
  Processes();
  /// The group that torch.distributed made under this name ("": alone); small exchanges go by `device`.
  /// Throws Error for a name that is not known.
  Processes(const std::string& group_name, const c10::Device& device);

  int64_t rank() const { return rank_; }
  int64_t size() const { return size_; }
  bool alone() const { return size_ == 1; }
  bool first() const { return rank_ == 0; }
  /// Null where alone.
  c10d::ProcessGroup* group() const;

  /// Adds up a tensor, in place.
  void sum(at::Tensor& tensor) const;
  std::vector<double> sum(const std::vector<double>& values) const;
  /// Rows (M,...) of all, as many of each, in the order of the ranks: (size * M,...).
  at::Tensor gather_rows(const at::Tensor& rows) const;
  /// Copies the tensors of process `from` into those of all others.
  void broadcast(const std::vector<at::Tensor>& tensors, int64_t from = 0) const;

 private:
  struct Group;
  std::shared_ptr<Group> group_;
  c10::Device device_{c10::DeviceType::CPU};
  int64_t rank_ = 0, size_ = 1;
};

}  // namespace genie::training
