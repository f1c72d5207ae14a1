#include "genie/nn/vector_quantizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "genie/nn/autocast.h"
#include "genie/nn/input_check.h"
#include "genie/nn/kmeans.h"

namespace genie::nn {

VectorQuantizerImpl::VectorQuantizerImpl(const config::QuantizerConfig& config) : config_(config) {
  TORCH_CHECK_VALUE(config.num_codes >= 1 && config.code_dim >= 1,
                    "VectorQuantizer: num_codes and code_dim must be at least 1, got ", config.num_codes,
                    " and ", config.code_dim);
  TORCH_CHECK_VALUE(config.update == "ema" || config.update == "loss",
                    "VectorQuantizer: update must be ema or loss, got '", config.update, "'");
  TORCH_CHECK_VALUE(config.ema_decay >= 0 && config.ema_decay < 1,
                    "VectorQuantizer: ema_decay must be in [0, 1), got ", config.ema_decay);
  TORCH_CHECK_VALUE(config.dead_code_steps >= 0,
                    "VectorQuantizer: dead_code_steps must be at least 1, or 0 for never, got ",
                    config.dead_code_steps);
  for (const double weight : {config.commitment_weight, config.codebook_weight}) {
    TORCH_CHECK_VALUE(weight >= 0 && std::isfinite(weight),
                      "VectorQuantizer: commitment_weight and codebook_weight must be finite and at least 0, "
                      "got ",
                      config.commitment_weight, " and ", config.codebook_weight);
  }
  const at::Tensor start = at::randn({config.num_codes, config.code_dim});
  if (config.update == "loss") {
    codebook_ = register_parameter("codebook", start);
  } else {
    codebook_ = register_buffer("codebook", start);
    ema_count_ = register_buffer("ema_count", at::ones({config.num_codes}));
    ema_sum_ = register_buffer("ema_sum", start.clone());
  }
  unused_steps_ = register_buffer("unused_steps", at::zeros({config.num_codes}));
  initialized_ = register_buffer("initialized", at::zeros({}, at::kBool));
}

Quantized VectorQuantizerImpl::forward(const at::Tensor& x) {
  check_input("VectorQuantizer", "x", x, config_.code_dim, codebook_);
  TORCH_CHECK_TYPE(
      !is_training() || codebook_.scalar_type() == at::kFloat || codebook_.scalar_type() == at::kDouble,
      "VectorQuantizer: counts and averages of training don't fit ", codebook_.scalar_type(),
      "; keep the module in float32 and use autocast, or call eval()");
  const NoAutocastScope full_precision;
  const at::Tensor flat = x.reshape({-1, config_.code_dim}).to(codebook_.scalar_type());
  if (is_training() && config_.kmeans_init && !is_initialized())
    initialize_from(of_all_processes(flat.detach()), 0);
  at::Tensor indices;
  {
    at::NoGradGuard no_grad;
    indices = nearest(flat, codebook_);
    if (is_training()) gather(flat, indices);
  }
  const at::Tensor entries = codebook_.index_select(0, indices);
  Quantized result;
  result.loss = config_.commitment_weight * (flat - entries.detach()).square().sum(1).mean();
  if (config_.update == "loss") {
    result.loss = result.loss + config_.codebook_weight * (flat.detach() - entries).square().sum(1).mean();
  }
  result.values = (flat + (entries - flat).detach()).view(x.sizes());
  result.indices = indices.view(x.sizes().slice(0, x.dim() - 1));
  return result;
}

at::Tensor VectorQuantizerImpl::lookup(const at::Tensor& indices) const {
  TORCH_CHECK_TYPE(indices.scalar_type() == at::kLong, "VectorQuantizer: expected int64 indices, got ",
                   indices.scalar_type());
  TORCH_CHECK_VALUE(indices.device() == codebook_.device(), "VectorQuantizer: indices are on ",
                    indices.device(), ", the module on ", codebook_.device());
  if (indices.numel() > 0) {
    const int64_t low = indices.min().item<int64_t>(), high = indices.max().item<int64_t>();
    TORCH_CHECK_INDEX(low >= 0 && high < config_.num_codes, "VectorQuantizer: indices must be in 0..",
                      config_.num_codes - 1, ", got ", low, "..", high);
  }
  auto shape = indices.sizes().vec();
  shape.push_back(config_.code_dim);
  return codebook_.index_select(0, indices.reshape({-1})).view(shape);
}

void VectorQuantizerImpl::initialize_from(const at::Tensor& x, uint64_t seed) {
  constexpr int64_t kIterations = 20;
  at::NoGradGuard no_grad;
  TORCH_CHECK_VALUE(x.dim() == 2 && x.size(1) == config_.code_dim && x.size(0) >= 1,
                    "VectorQuantizer: the codes start from encodings (M,", config_.code_dim,
                    ") with M >= 1, got ", x.sizes());
  TORCH_CHECK_VALUE(x.isfinite().all().item<bool>(),
                    "VectorQuantizer: the encodings to start from hold NaN or infinite values");
  codebook_.copy_(kmeans(x, config_.num_codes, kIterations, seed));
  if (config_.update == "ema") {
    ema_sum_.copy_(codebook_);
    ema_count_.fill_(1);
  }
  unused_steps_.zero_();
  initialized_.fill_(true);
}

bool VectorQuantizerImpl::is_initialized() {
  const bool counts_changes = !initialized_.is_inference();
  if (counts_changes && set_version_ == initialized_._version()) return true;
  const bool set = initialized_.item<bool>();
  set_version_ = set && counts_changes ? std::optional(initialized_._version()) : std::nullopt;
  return set;
}

void VectorQuantizerImpl::gather(const at::Tensor& x, const at::Tensor& indices) {
  const at::Tensor count = at::zeros({config_.num_codes}, codebook_.options())
                               .index_add_(0, indices, at::ones({x.size(0)}, codebook_.options()));
  const at::Tensor sum = at::zeros(codebook_.sizes(), codebook_.options()).index_add_(0, indices, x.detach());
  batch_count_ = batch_count_.defined() ? batch_count_ + count : count;
  batch_sum_ = batch_sum_.defined() ? batch_sum_ + sum : sum;
  batch_sample_ = x.detach();
}

void VectorQuantizerImpl::sum_statistics() {
  if (!sharing_.sum) return;
  at::Tensor both = at::cat({batch_count_.unsqueeze(1), batch_sum_}, 1);
  sharing_.sum(both);
  batch_count_ = both.select(1, 0).contiguous();
  batch_sum_ = both.narrow(1, 1, config_.code_dim).contiguous();
}

void VectorQuantizerImpl::update_codebook(uint64_t seed) {
  if (!batch_count_.defined()) return;
  at::NoGradGuard no_grad;
  sum_statistics();
  if (!batch_sum_.isfinite().all().item<bool>()) {
    discard_statistics();
    TORCH_CHECK_VALUE(false,
                      "VectorQuantizer: the encodings since the last update hold NaN or infinite values; the "
                      "codebook stays as it is, and their statistics are discarded");
  }
  const at::Tensor used = batch_count_ > 0;
  if (config_.update == "ema") {
    ema_count_.mul_(config_.ema_decay).add_(batch_count_, 1 - config_.ema_decay);
    ema_sum_.mul_(config_.ema_decay).add_(batch_sum_, 1 - config_.ema_decay);
    // An entry without weight keeps its place until it is used again or declared dead.
    const at::Tensor alive = (ema_count_ > 1e-6).unsqueeze(1);
    codebook_.copy_(at::where(alive, ema_sum_ / ema_count_.clamp_min(1e-6).unsqueeze(1), codebook_));
  }
  unused_steps_.add_(1).masked_fill_(used, 0);
  if (config_.dead_code_steps > 0) {
    const at::Tensor dead = (unused_steps_ >= config_.dead_code_steps).nonzero().flatten();
    const int64_t count = dead.size(0);
    if (count > 0) {
      const at::Tensor from = draw_by_error(of_all_processes(batch_sample_), codebook_, count, seed);
      codebook_.index_copy_(0, dead, from.to(codebook_.scalar_type()));
      unused_steps_.index_fill_(0, dead, 0);
      if (config_.update == "ema") {
        // The weight of an average entry, so that the next batch moves it no faster than the others.
        const double weight = std::max(ema_count_.mean().item<double>(), 1e-3);
        ema_count_.index_fill_(0, dead, weight);
        ema_sum_.index_copy_(0, dead, codebook_.index_select(0, dead) * weight);
      }
    }
  }
  usage_ = usage_.defined() ? usage_ + batch_count_ : batch_count_;
  discard_statistics();
}

std::vector<at::Tensor> VectorQuantizerImpl::take_statistics() {
  if (!batch_count_.defined()) return {};
  const std::vector<at::Tensor> taken = {batch_count_, batch_sum_, batch_sample_};
  discard_statistics();
  return taken;
}

void VectorQuantizerImpl::set_statistics(const std::vector<at::Tensor>& statistics) {
  discard_statistics();
  if (statistics.empty()) return;
  TORCH_CHECK_VALUE(statistics.size() == 3, "VectorQuantizer: statistics are count, sum and sample, got ",
                    statistics.size());
  batch_count_ = statistics[0];
  batch_sum_ = statistics[1];
  batch_sample_ = statistics[2];
}

void VectorQuantizerImpl::discard_statistics() {
  batch_count_ = at::Tensor();
  batch_sum_ = at::Tensor();
  batch_sample_ = at::Tensor();
}

void VectorQuantizerImpl::rebind(const std::string& name, const at::Tensor& tensor) {
  if (name == "codebook") codebook_ = tensor;
  if (name == "ema_count") ema_count_ = tensor;
  if (name == "ema_sum") ema_sum_ = tensor;
  if (name == "unused_steps") unused_steps_ = tensor;
  if (name == "initialized") {
    initialized_ = tensor;
    set_version_.reset();
  }
}

CodebookUsage VectorQuantizerImpl::take_usage() {
  CodebookUsage usage;
  if (!usage_.defined()) return usage;
  const at::Tensor share = usage_.to(at::kDouble) / usage_.sum();
  usage.share = (usage_ > 0).to(at::kDouble).mean().item<double>();
  usage.perplexity = at::exp(-at::xlogy(share, share).sum()).item<double>();
  usage_ = at::Tensor();
  return usage;
}

}  // namespace genie::nn
