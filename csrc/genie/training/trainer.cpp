#include "genie/training/trainer.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "genie/core/error.h"
#include "genie/core/progress.h"
#include "genie/core/random.h"
#include "genie/data/loader.h"
#include "genie/nn/autocast.h"
#include "genie/training/checkpoint_writer.h"
#include "genie/training/device.h"
#include "genie/training/metrics_log.h"
#include "genie/training/module_state.h"
#include "genie/training/optimizer.h"
#include "genie/training/schedule.h"

namespace genie::training {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Means of scalars over the steps since the last log line; kept as tensors so that nothing waits for a GPU.
class RunningMeans {
 public:
  void add(const std::string& name, const at::Tensor& value) {
    auto& [sum, count] = sums_[name];
    sum = sum.defined() ? sum + value.detach() : value.detach().clone();
    ++count;
  }
  Metrics take() {
    Metrics means;
    for (auto& [name, entry] : sums_)
      means.emplace_back(name, entry.first.item<double>() / static_cast<double>(entry.second));
    sums_.clear();
    return means;
  }

 private:
  std::map<std::string, std::pair<at::Tensor, int64_t>> sums_;
};

}  // namespace

/// The state of a run of one phase; each step of the loop is a method.
struct Trainer::Loop {
  Loop(Trainer& owner, std::shared_ptr<const data::ClipDataset> training,
       std::shared_ptr<const data::ClipDataset> validation)
      : phase(owner.phase_),
        config(owner.config_),
        settings(phase.settings()),
        hooks(owner.hooks_),
        device(training_device(config.training)),
        dtype(training_dtype(config.training, device)),
        training_clips(std::move(training)),
        validation_clips(std::move(validation)),
        config_yaml(config::to_yaml(config)),
        optimizer(phase.model(), settings),
        writer(owner.directory_ + "/checkpoints", config.training.keep_last, config.training.keep_every) {
    restore(owner);
    log.emplace(owner.directory_ + "/metrics.jsonl", step);
    data::LoaderOptions options;
    options.batch_size = settings.batch_size;
    options.seed =
        mix_seed(static_cast<uint64_t>(config.training.seed), Stream::data_order, stable_hash(phase.name()));
    options.num_workers = config.data.num_workers;
    options.prefetch = config.data.prefetch;
    loader.emplace(training_clips, options, step);
  }

  void restore(const Trainer& owner) {
    const std::string directory = owner.directory_ + "/checkpoints";
    std::string warning;
    const std::optional<std::string> latest = latest_checkpoint(directory, &warning);
    if (!warning.empty() && hooks.show_progress) fprintf(stderr, "%s", warning.c_str());
    if (!latest) return initialize();
    check(owner.resume_, directory,
          " already holds checkpoints; --resume continues them, another --out starts anew");
    const CheckpointData data = load_checkpoint(*latest);
    copy_tensors(data.model, module_state(phase.model()), phase.name());
    // Weights that were saved by themselves (save_genie) have no optimizer state yet.
    if (data.state.step > 0 || !data.optimizer.empty()) optimizer.load_state(data.optimizer);
    step = data.state.step;
  }

  /// Data-dependent starts look at clips spread over the training episodes.
  void initialize() {
    constexpr int64_t kClips = 64;
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> clips;
    for (const int64_t index : training_clips->spread(kClips))
      clips.push_back(training_clips->get(index).video);
    phase.initialize(models::to_model_input(at::stack(clips), device));
  }

  Outcome run() {
    ProgressLine::Options options;
    options.quiet = !hooks.show_progress;
    ProgressLine progress(phase.name(), settings.steps, step, options);
    phase.model().train();
    begin = Clock::now();
    log_begin = begin;
    while (step < settings.steps) {
      if (hooks.should_stop && hooks.should_stop()) {
        save();
        writer.wait();
        return Outcome::stopped;
      }
      train_step();
      if (progress.due())
        progress.update(step, {{"loss", last_loss}},
                        loader->wait_seconds() / std::max(seconds_since(begin), 1e-9));
      if (step % config.training.log_every == 0 || step == settings.steps) log_means();
      if (step % config.training.validate_every == 0 || step == settings.steps) {
        const Metrics metrics = validate();
        if (hooks.show_progress) progress.print(describe(metrics));
      }
      if (step % config.training.checkpoint_every == 0 || step == settings.steps) save();
    }
    writer.wait();
    return Outcome::finished;
  }

  void train_step() {
    const data::Batch batch = loader->next();
    const int64_t count = batch.video.size(0), parts = settings.accumulation, part_size = count / parts;
    std::vector<int64_t> samples(count);
    for (int64_t i = 0; i < count; ++i) samples[i] = batch.first_sample + i;
    const double total_weight = phase.weight(samples);
    double loss = 0;
    for (int64_t p = 0; p < parts; ++p) {
      const int64_t first = p * part_size;
      const Part part{models::to_model_input(batch.video.narrow(0, first, part_size), device),
                      {samples.begin() + first, samples.begin() + first + part_size}};
      at::manual_seed(mix_seed(static_cast<uint64_t>(config.training.seed), Stream::dropout, step, p));
      PartResult result;
      {
        nn::AutocastScope autocast(device.type(), dtype);
        result = phase.loss(part, total_weight);
      }
      torch::autograd::backward({result.loss}, {});
      loss += result.loss.item<double>();
      for (const auto& [name, value] : result.values)
        sums[name] = sums.count(name) ? sums[name] + value : value;
    }
    const double norm = optimizer.clip_gradients(settings.clip_gradient_norm);
    const bool finite = std::isfinite(loss) && std::isfinite(norm);
    ++step;
    const double rate = learning_rate(settings, step);
    if (finite) {
      optimizer.step(rate, weight_decay(settings, step));
      bad_in_a_row = 0;
      means.add("loss", at::scalar_tensor(loss, at::kDouble));
      means.add("gradient_norm", at::scalar_tensor(norm, at::kDouble));
      for (const auto& [name, value] : sums) means.add(name, value);
    } else {
      ++bad_steps;
      ++bad_in_a_row;
      check(bad_in_a_row < config.training.max_bad_steps, phase.name(),
            ": loss or gradient was not finite for ", bad_in_a_row, " steps in a row, up to step ", step,
            "; the last good checkpoint is ",
            writer.last_good().empty() ? std::string("none") : writer.last_good(), "; lower training.",
            phase.name(), ".learning_rate or look at the data");
    }
    sums.clear();
    optimizer.zero_grad();
    phase.after_step(step, !finite);
    last_loss = loss;
    last_rate = rate;
  }

  void log_means() {
    Metrics metrics = means.take();
    for (auto& item : phase.gathered()) metrics.push_back(std::move(item));
    const std::string alarm = phase.alarm();
    if (!alarm.empty() && alarm != last_alarm)
      fprintf(stderr, "\n%s step %lld: warning: %s\n", phase.name().c_str(), static_cast<long long>(step),
              alarm.c_str());
    last_alarm = alarm;
    const double elapsed = seconds_since(log_begin), waited = loader->wait_seconds();
    metrics.emplace_back("learning_rate", last_rate);
    metrics.emplace_back("steps_per_second",
                         static_cast<double>(step - logged_step) / std::max(elapsed, 1e-9));
    metrics.emplace_back("data_wait_seconds", waited - logged_wait);
    metrics.emplace_back("bad_steps", static_cast<double>(bad_steps));
    metrics.emplace_back("peak_memory_gib", peak_host_memory_gib());
    logged_step = step;
    logged_wait = waited;
    log_begin = Clock::now();
    emit(metrics);
  }

  Metrics validate() {
    if (!validation_clips || validation_clips->size() == 0) return {};
    const auto validation_begin = Clock::now();
    at::NoGradGuard no_grad;
    phase.model().eval();
    std::vector<std::pair<std::string, double>> totals;
    const std::vector<int64_t> indices = validation_clips->spread(config.training.validation_clips);
    const int64_t at_once = std::max<int64_t>(1, settings.batch_size / settings.accumulation);
    for (size_t first = 0; first < indices.size(); first += at_once) {
      const size_t end = std::min(indices.size(), first + at_once);
      std::vector<at::Tensor> clips;
      for (size_t i = first; i < end; ++i) clips.push_back(validation_clips->get(indices[i]).video);
      nn::AutocastScope autocast(device.type(), dtype);
      const Metrics part = phase.validate({models::to_model_input(at::stack(clips), device), {}});
      const double share = static_cast<double>(end - first) / static_cast<double>(indices.size());
      totals.resize(part.size());
      for (size_t i = 0; i < part.size(); ++i)
        totals[i] = {"validation_" + part[i].first, totals[i].second + share * part[i].second};
    }
    phase.model().train();
    emit(totals);
    // Neither speed nor waiting time of the next log line counts this.
    log_begin += Clock::now() - validation_begin;
    return totals;
  }

  void emit(const Metrics& metrics) {
    log->write(step, metrics);
    if (hooks.on_metrics) hooks.on_metrics(phase.name(), step, metrics);
  }

  std::string describe(const Metrics& metrics) const {
    std::string text = concat(phase.name(), " step ", step, ":");
    for (const auto& [name, value] : metrics) text += concat("  ", name, " ", value);
    return text;
  }

  void save() {
    CheckpointData data;
    data.model = module_state(phase.model());
    data.optimizer = optimizer.state();
    data.state.phase = phase.name();
    data.state.step = step;
    data.state.seed = static_cast<uint64_t>(config.training.seed);
    data.state.loader_position = loader->position();
    data.state.config_hash = concat(std::hex, stable_hash(config_yaml));
    data.config_yaml = config_yaml;
    writer.write_async(data);
  }

  Phase& phase;
  const config::Config& config;
  const config::PhaseConfig& settings;
  const TrainerHooks& hooks;
  at::Device device;
  at::ScalarType dtype;
  std::shared_ptr<const data::ClipDataset> training_clips, validation_clips;
  std::string config_yaml;
  AdamW optimizer;
  CheckpointWriter writer;
  std::optional<MetricsLog> log;
  std::optional<data::Loader> loader;

  int64_t step = 0;  ///< optimizer steps done
  int64_t bad_steps = 0, bad_in_a_row = 0, logged_step = 0;
  double last_loss = 0, last_rate = 0, logged_wait = 0;
  std::string last_alarm;
  RunningMeans means;
  std::map<std::string, at::Tensor> sums;  ///< values of the step under way, over its parts
  Clock::time_point begin, log_begin;
};

Trainer::Trainer(Phase& phase, const config::Config& config, std::string directory, bool resume,
                 TrainerHooks hooks)
    : phase_(phase),
      config_(config),
      directory_(std::move(directory)),
      resume_(resume),
      hooks_(std::move(hooks)) {}

Outcome Trainer::run(std::shared_ptr<const data::ClipDataset> training,
                     std::shared_ptr<const data::ClipDataset> validation) {
  Loop loop(*this, std::move(training), std::move(validation));
  return loop.run();
}

}  // namespace genie::training
