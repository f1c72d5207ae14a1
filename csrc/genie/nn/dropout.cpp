#include "genie/nn/dropout.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include <limits>
#include <mutex>
#include <utility>

#include "genie/core/random.h"

namespace genie::nn {
namespace {

thread_local SampleSeeds current;

}  // namespace

SampleSeedsScope::SampleSeedsScope(std::vector<uint64_t> seeds)
    : SampleSeedsScope(SampleSeeds{std::make_shared<const std::vector<uint64_t>>(std::move(seeds)), 0}) {}

SampleSeedsScope::SampleSeedsScope(SampleSeeds seeds) : former_(std::exchange(current, std::move(seeds))) {}

SampleSeedsScope::~SampleSeedsScope() { current = former_; }

SampleSeeds sample_seeds() { return current; }

at::Tensor keep_mask(at::IntArrayRef shape, double keep, const at::TensorOptions& options) {
  at::Tensor mask = at::empty(shape, options);
  if (!current.of_samples) return mask.bernoulli_(keep).div_(keep);
  const auto& seeds = *current.of_samples;
  const auto samples = static_cast<int64_t>(seeds.size());
  TORCH_CHECK(samples > 0 && !shape.empty() && shape[0] % samples == 0, "dropout: ", samples,
              " samples do not divide dimension 0 of ", shape);
  const uint64_t draw = current.draws++;
  at::Generator generator = at::globalContext().defaultGenerator(mask.device());
  const int64_t rows = shape[0] / samples;
  for (int64_t i = 0; i < samples; ++i) {
    {
      const std::lock_guard<std::mutex> lock(generator.mutex());
      generator.set_current_seed(mix_seed(seeds[i], draw));
    }
    mask.narrow(0, i * rows, rows).bernoulli_(keep, generator);
  }
  return mask.div_(keep);
}

at::Tensor dropout(const at::Tensor& x, double rate, bool training) {
  if (rate == 0 || !training || !current.of_samples) return at::dropout(x, rate, training);
  return x * keep_mask(x.sizes(), 1 - rate, x.options());
}

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const std::optional<at::Tensor>& mask, double dropout_rate, bool causal, double scale) {
  if (dropout_rate == 0 || !current.of_samples) {
    return at::scaled_dot_product_attention(q, k, v, mask, dropout_rate, causal, scale);
  }
  at::Tensor scores = at::matmul(q, k.transpose(-1, -2)) * scale;
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  if (causal) {
    const at::Tensor seen =
        at::ones({scores.size(-2), scores.size(-1)}, scores.options().dtype(at::kBool)).tril();
    scores = scores.masked_fill(seen.logical_not(), kNever);
  }
  if (mask) {
    scores =
        mask->scalar_type() == at::kBool ? scores.masked_fill(mask->logical_not(), kNever) : scores + *mask;
  }
  return at::matmul(nn::dropout(scores.softmax(-1), dropout_rate, true), v);
}

}  // namespace genie::nn
