#include "genie/training/sample_noise.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

namespace genie::training {

at::Tensor sample_uniform(const std::vector<int64_t>& samples, at::IntArrayRef shape, uint64_t seed,
                          Stream stream) {
  std::vector<at::Tensor> rows;
  rows.reserve(samples.size());
  for (const int64_t sample : samples) {
    at::Generator generator = at::detail::createCPUGenerator(mix_seed(seed, stream, sample));
    rows.push_back(at::rand(shape, generator, at::TensorOptions().dtype(at::kFloat)));
  }
  return at::stack(rows);
}

}  // namespace genie::training
