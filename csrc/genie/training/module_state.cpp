#include "genie/training/module_state.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstring>

#include "genie/core/error.h"
#include "genie/core/random.h"

namespace genie::training {
namespace {

uint64_t bytes_hash(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.detach().cpu().contiguous();
  const auto* bytes = static_cast<const char*>(dense.const_data_ptr());
  uint64_t hash = splitmix64(dense.nbytes());
  for (size_t i = 0; i < dense.nbytes(); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes + i, std::min(sizeof(word), dense.nbytes() - i));
    hash = splitmix64(hash ^ word);
  }
  return hash;
}

}  // namespace

TensorMap module_state(const torch::nn::Module& module) {
  TensorMap state;
  for (const auto& item : module.named_parameters()) state[item.key()] = item.value();
  for (const auto& item : module.named_buffers()) state[item.key()] = item.value();
  return state;
}

uint64_t weights_hash(const torch::nn::Module& module, uint64_t seed) {
  uint64_t hash = seed;
  const auto add = [&](const auto& tensors) {
    for (const auto& item : tensors) {
      hash = mix_seed(hash, stable_hash(item.key()), bytes_hash(item.value()));
    }
  };
  add(module.named_parameters());
  add(module.named_buffers());
  return hash;
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
