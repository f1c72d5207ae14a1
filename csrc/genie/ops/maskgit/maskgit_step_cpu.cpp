#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "genie/ops/maskgit/draw_codes.h"
#include "genie/ops/maskgit/maskgit_step.h"

namespace genie::ops {

constinit CpuKernel<void(const DrawCodesTask&)> draw_codes;

namespace {

at::Tensor checked_noise(const at::Tensor& noise, const char* name) {
  auto values = noise.to(at::kDouble).contiguous();
  const double* data = values.const_data_ptr<double>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    TORCH_CHECK_VALUE(data[i] >= 0 && data[i] < 1, "genie::maskgit_step: ", name, " must be in [0, 1), got ",
                      data[i]);
  }
  return values;
}

/// A standard Gumbel variable from a uniform one.
double gumbel(double uniform) {
  return -std::log(-std::log(std::max(uniform, std::numeric_limits<double>::min())));
}

std::tuple<at::Tensor, at::Tensor> maskgit_step_cpu(const at::Tensor& logits_, const at::Tensor& tokens_,
                                                    const at::Tensor& mask_, const at::Tensor& sample_noise_,
                                                    const at::Tensor& confidence_noise_, int64_t num_masked,
                                                    double temperature, int64_t top_k, double top_p,
                                                    double confidence_temperature, std::string_view unmask) {
  check_maskgit_step(logits_, tokens_, mask_, sample_noise_, confidence_noise_, num_masked,
                     {temperature, top_k, top_p, confidence_temperature, unmask});
  const auto logits = logits_.contiguous();
  const auto sample_noise = checked_noise(sample_noise_, "sample_noise");
  const auto confidence_noise = checked_noise(confidence_noise_, "confidence_noise");
  auto tokens = tokens_.clone(at::MemoryFormat::Contiguous);
  auto mask = mask_.clone(at::MemoryFormat::Contiguous);
  const int64_t samples = logits.size(0), positions = logits.size(1);
  int64_t* token = tokens.mutable_data_ptr<int64_t>();
  bool* masked = mask.mutable_data_ptr<bool>();
  const double* order_noise = confidence_noise.const_data_ptr<double>();

  // Samples that have to reveal something, and their masked positions.
  std::vector<std::vector<int64_t>> candidates(static_cast<size_t>(samples));
  std::vector<int64_t> rows;
  for (int64_t b = 0; b < samples; ++b) {
    auto& mine = candidates[static_cast<size_t>(b)];
    for (int64_t row = b * positions; row < (b + 1) * positions; ++row) {
      if (masked[row]) mine.push_back(row);
    }
    if (static_cast<int64_t>(mine.size()) <= num_masked) mine.clear();
    rows.insert(rows.end(), mine.begin(), mine.end());
  }

  std::vector<int64_t> drawn(static_cast<size_t>(samples * positions));
  std::vector<double> confidence(drawn.size());
  draw_codes(DrawCodesTask{.dtype = logits.scalar_type(),
                           .count = static_cast<int64_t>(rows.size()),
                           .rows = rows.data(),
                           .logits = logits.const_data_ptr(),
                           .row_stride = logits.size(2),
                           .codes = logits.size(2),
                           .noise = sample_noise.const_data_ptr<double>(),
                           .temperature = temperature,
                           .top_k = top_k,
                           .top_p = top_p,
                           .drawn = drawn.data(),
                           .log_probability = confidence.data()});
  for (const int64_t row : rows) {
    const auto r = static_cast<size_t>(row);
    TORCH_CHECK_VALUE(drawn[r] >= 0, "genie::maskgit_step: the logits of sample ", row / positions,
                      ", position ", row % positions,
                      " hold NaN, +inf, or nothing but -inf: the model has diverged");
    if (unmask == "random") {
      confidence[r] = order_noise[row];
    } else if (confidence_temperature > 0) {
      confidence[r] += confidence_temperature * gumbel(order_noise[row]);
    }
  }
  for (auto& mine : candidates) {
    const auto revealed = static_cast<int64_t>(mine.size()) - num_masked;
    if (revealed <= 0) continue;
    std::partial_sort(mine.begin(), mine.begin() + revealed, mine.end(), [&](int64_t a, int64_t b) {
      const double first = confidence[static_cast<size_t>(a)], second = confidence[static_cast<size_t>(b)];
      return first != second ? first > second : a < b;
    });
    for (int64_t i = 0; i < revealed; ++i) {
      const int64_t row = mine[static_cast<size_t>(i)];
      token[row] = drawn[static_cast<size_t>(row)];
      masked[row] = false;
    }
  }
  return {tokens, mask};
}

}  // namespace

TORCH_LIBRARY_IMPL(genie, CPU, m) { m.impl("maskgit_step", maskgit_step_cpu); }

}  // namespace genie::ops
