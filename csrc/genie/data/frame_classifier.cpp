#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <torch/script.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "genie/core/error.h"
#include "genie/data/quality_filter.h"
#include "genie/data/transforms.h"

namespace genie::data {
namespace {

/// The first line of what torch says; the rest is a traceback.
std::string first_line(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

torch::jit::Module load_classifier(const std::string& path) {
  check(std::filesystem::is_regular_file(path), "data.filter.classifier '", path,
        "' does not exist or is no file: ",
        "give a TorchScript file saved with torch.jit.save, or '' for none");
  try {
    auto module = torch::jit::load(path, at::kCPU);
    module.eval();
    return module;
  } catch (const std::exception& error) {
    throw Error(concat("data.filter.classifier '", path, "' is not a TorchScript file (save it with ",
                       "torch.jit.save): ", first_line(error)));
  }
}

at::Tensor run_classifier(torch::jit::Module& module, const at::Tensor& frames, const std::string& path) {
  at::Tensor scores;
  try {
    const auto result = module.forward({frames});
    if (result.isTensor()) scores = result.toTensor();
  } catch (const std::exception& error) {
    throw Error(concat("data.filter.classifier '", path, "' failed on float frames ", frames.sizes(),
                       " in [0,1]: ", first_line(error)));
  }
  check(scores.defined() && scores.numel() == frames.size(0), "data.filter.classifier '", path,
        "' must return one score a frame, ", frames.size(0), ", found ",
        scores.defined() ? concat(scores.numel(), " values") : "no tensor");
  scores = scores.to(at::kCPU, at::kFloat).reshape({-1}).contiguous();
  check(scores.isfinite().all().item<bool>(), "data.filter.classifier '", path,
        "' returned a score that is not ", "finite");
  return scores;
}

}  // namespace

std::vector<float> classify_frames(const VideoFile& file, const std::vector<int64_t>& starts, int64_t stride,
                                   const config::DataConfig& config) {
  const c10::InferenceMode inference;
  const auto& path = config.filter.classifier;
  auto module = load_classifier(path);
  std::vector<bool> shown(file.num_frames(), false);
  for (const int64_t start : starts) {
    for (int64_t i = 0; i < config.num_frames; ++i) shown[start + i * stride] = true;
  }
  constexpr int64_t block = 64;
  std::vector<float> scores(file.num_frames(), 0.f);
  for (int64_t begin = 0; begin < file.num_frames();) {
    if (!shown[begin]) {
      ++begin;
      continue;
    }
    int64_t end = begin;
    while (end < file.num_frames() && end - begin < block && shown[end]) ++end;
    const auto frames = resize_frames(file.read_frames(begin, end - begin), config.height, config.width);
    const auto input = frames.permute({0, 3, 1, 2}).to(at::kFloat).div_(255).contiguous();
    const auto result = run_classifier(module, input, path);
    std::copy_n(result.const_data_ptr<float>(), end - begin, scores.begin() + begin);
    begin = end;
  }
  return scores;
}

}  // namespace genie::data
