#include "genie/training/running_means.h"

#include <ATen/ATen.h>

namespace genie::training {
namespace {

constexpr const char* kSum = "sum.";
constexpr const char* kCount = "count.";

}  // namespace

void RunningMeans::add(const std::string& name, const at::Tensor& value) {
  auto& [sum, count] = sums_[name];
  const at::Tensor precise = value.detach().to(at::kDouble);
  sum = sum.defined() ? sum + precise : precise;
  ++count;
}

Metrics RunningMeans::take() {
  Metrics means;
  for (auto& [name, entry] : sums_)
    means.emplace_back(name, entry.first.item<double>() / static_cast<double>(entry.second));
  sums_.clear();
  return means;
}

std::map<std::string, double> RunningMeans::state() const {
  std::map<std::string, double> numbers;
  for (const auto& [name, entry] : sums_) {
    numbers[kSum + name] = entry.first.item<double>();
    numbers[kCount + name] = static_cast<double>(entry.second);
  }
  return numbers;
}

void RunningMeans::load_state(const std::map<std::string, double>& numbers) {
  sums_.clear();
  for (const auto& [key, count] : numbers) {
    if (key.rfind(kCount, 0) != 0) continue;
    const std::string name = key.substr(std::string(kCount).size());
    const auto sum = numbers.find(kSum + name);
    if (sum != numbers.end())
      sums_[name] = {at::scalar_tensor(sum->second, at::kDouble), static_cast<int64_t>(count)};
  }
}

}  // namespace genie::training
