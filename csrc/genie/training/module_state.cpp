#include "genie/training/module_state.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "genie/core/error.h"

namespace genie::training {

TensorMap module_state(const torch::nn::Module& module) {
  TensorMap state;
  for (const auto& item : module.named_parameters()) state[item.key()] = item.value();
  for (const auto& item : module.named_buffers()) state[item.key()] = item.value();
  return state;
}

void copy_tensors(const TensorMap& from, const TensorMap& to, const std::string& what) {
  std::string problems;
  for (const auto& [name, target] : to) {
    const auto found = from.find(name);
    if (found == from.end()) {
      problems += "\n  missing: " + name;
    } else if (found->second.sizes() != target.sizes()) {
      problems +=
          concat("\n  ", name, ": expected shape ", target.sizes(), ", found ", found->second.sizes());
    }
  }
  for (const auto& item : from) {
    if (!to.count(item.first)) problems += "\n  unexpected: " + item.first;
  }
  check(problems.empty(), "the ", what, " state does not fit this configuration:", problems,
        "\nuse the configuration it was trained with (config.yaml beside it)");
  at::NoGradGuard no_grad;
  for (const auto& [name, target] : to) at::Tensor(target).copy_(from.at(name));
}

}  // namespace genie::training
