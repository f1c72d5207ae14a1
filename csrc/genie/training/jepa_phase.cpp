#include "genie/training/jepa_phase.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <cstdio>
#include <numeric>

#include "genie/core/error.h"
#include "genie/core/random.h"
#include "genie/training/checkpoint.h"
#include "genie/training/jepa_masks.h"
#include "genie/training/module_state.h"

namespace genie::training {
namespace {

nn::GridSize clip_grid(const config::Config& config) {
  const auto& e = config.jepa.encoder;
  const int64_t own = config.training.jepa.num_frames, frames = own > 0 ? own : config.data.num_frames;
  check(frames % e.tubelet_size == 0, "phase jepa: clips of ", frames,
        " frames don't divide into tubelets of jepa.encoder.tubelet_size = ", e.tubelet_size,
        "; change training.jepa.num_frames or it");
  check(config.data.height % e.patch_size == 0 && config.data.width % e.patch_size == 0,
        "phase jepa: frames of data.height = ", config.data.height, " and data.width = ", config.data.width,
        " don't divide into patches of jepa.encoder.patch_size = ", e.patch_size);
  const nn::GridSize grid{.frames = frames / e.tubelet_size,
                          .height = config.data.height / e.patch_size,
                          .width = config.data.width / e.patch_size};
  check(grid.count() >= 2,
        "phase jepa: a clip is one token, which leaves nothing to predict it from; lower "
        "jepa.encoder.patch_size or tubelet_size");
  return grid;
}

void load_initial_weights(models::Jepa& model, const config::JepaConfig& config) {
  TensorMap given = load_safetensors(config.initial_weights);
  TensorMap own = module_state(*model);
  const bool has_target =
      std::ranges::any_of(given, [](const auto& item) { return item.first.starts_with("target_encoder."); });
  if (!has_target)
    std::erase_if(own, [](const auto& item) { return item.first.starts_with("target_encoder."); });
  if (!config.initial_strict) {
    std::string passed_over;
    for (const auto& [name, tensor] : given) {
      const auto found = own.find(name);
      if (found == own.end() || found->second.sizes() != tensor.sizes())
        passed_over += concat("\n  not taken: ", name, " ", tensor.sizes());
    }
    std::erase_if(given, [&](const auto& item) {
      const auto found = own.find(item.first);
      return found == own.end() || found->second.sizes() != item.second.sizes();
    });
    std::erase_if(own, [&](const auto& item) {
      if (given.count(item.first)) return false;
      passed_over += concat("\n  left at random: ", item.first);
      return true;
    });
    if (!passed_over.empty())
      std::fprintf(stderr, "%s:%s\n", config.initial_weights.c_str(), passed_over.c_str());
    check(!given.empty(), config.initial_weights, ": none of its weights fits the model");
  }
  copy_tensors(given, own, config.initial_weights);
  if (!has_target) model->copy_to_target();
}

class JepaPhase : public Phase {
 public:
  JepaPhase(const config::Config& config, const c10::Device& device)
      : config_(config), grid_(clip_grid(config)), model_(config.jepa, grid_) {
    if (!config.jepa.initial_weights.empty()) load_initial_weights(model_, config.jepa);
    model_->to(device);
  }

  std::string name() const override { return "jepa"; }
  torch::nn::Module& model() override { return *model_; }
  const config::PhaseConfig& settings() const override { return config_.training.jepa; }

  /// Also each kind of mask's tokens, seen and hidden.
  TensorMap inputs(const Part& part) override {
    TensorMap tensors = Phase::inputs(part);
    const auto masks =
        draw_jepa_masks(config_.jepa.masks, grid_, part.samples, config_.training.seed, part.video.device());
    for (size_t kind = 0; kind < masks.size(); ++kind) {
      tensors[concat("seen.", kind)] = masks[kind].seen;
      tensors[concat("hidden.", kind)] = masks[kind].hidden;
    }
    return tensors;
  }

  PartResult loss(const TensorMap& inputs, const at::Tensor& batch) override {
    const at::Tensor share = share_of(static_cast<double>(inputs.at("video").size(0)), batch);
    const Numbers numbers = compare(inputs);
    target_deviation_ = numbers.target_deviation;
    return {numbers.loss * share, {{"target_std", numbers.target_deviation * share}}};
  }

  void after_step(int64_t step, bool skipped) override {
    if (skipped) return;
    const double done =
        static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, settings().steps));
    model_->update_target(std::lerp(config_.jepa.momentum, config_.jepa.final_momentum, std::min(1.0, done)));
  }

  std::string alarm() const override {
    if (!target_deviation_.defined()) return "";
    const auto deviation = target_deviation_.item<double>();
    if (deviation >= config_.jepa.collapse_alarm) return "";
    return concat(
        "the targets' standard deviation is ", deviation,
        ", below jepa.collapse_alarm = ", config_.jepa.collapse_alarm,
        ": the encoder gives all tokens nearly the same; lower training.jepa.learning_rate or raise "
        "jepa.momentum");
  }

  Metrics validate(const Part& part) override {
    std::vector<int64_t> numbers(static_cast<size_t>(part.video.size(0)));
    std::iota(numbers.begin(), numbers.end(), 0);
    const Numbers result = compare(inputs({part.video, numbers}));
    return {{"loss", result.loss.item<double>()}, {"target_std", result.target_deviation.item<double>()}};
  }

 private:
  struct Numbers {
    at::Tensor loss, target_deviation;
  };

  Numbers compare(const TensorMap& inputs) {
    const at::Tensor input = models::to_encoder_input(inputs.at("video"));
    const at::Tensor targets = model_->targets(input);
    const size_t kinds = (inputs.size() - 1) / 2;
    at::Tensor sum;
    for (size_t kind = 0; kind < kinds; ++kind) {
      const at::Tensor& hidden = inputs.at(concat("hidden.", kind));
      const at::Tensor wanted =
          targets.gather(1, hidden.unsqueeze(2).expand({hidden.size(0), hidden.size(1), targets.size(2)}));
      const at::Tensor prediction =
          model_->predict(input, inputs.at(concat("seen.", kind)), hidden, static_cast<int64_t>(kind))
              .to(at::kFloat);
      const at::Tensor distance = config_.jepa.loss == "l1" ? at::l1_loss(prediction, wanted)
                                                            : at::smooth_l1_loss(prediction, wanted);
      sum = sum.defined() ? sum + distance : distance;
    }
    return {sum / static_cast<double>(kinds), targets.flatten(0, 1).std(0, /*unbiased=*/false).mean()};
  }

  config::Config config_;
  nn::GridSize grid_;
  models::Jepa model_;
  at::Tensor target_deviation_;  // of the last part trained on
};

}  // namespace

std::unique_ptr<Phase> make_jepa_phase(const config::Config& config, const c10::Device& device) {
  return std::make_unique<JepaPhase>(config, device);
}

TensorMap load_jepa_weights(const std::string& run_directory) {
  const auto latest = latest_checkpoint(run_directory + "/jepa/checkpoints", nullptr, false);
  check(latest.has_value(), run_directory, ": phase jepa is not trained; run genie-train --phase jepa --out ",
        run_directory);
  return load_checkpoint(*latest, false).model;
}

}  // namespace genie::training
