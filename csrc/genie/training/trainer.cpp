#include "genie/training/trainer.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "genie/core/error.h"
#include "genie/core/progress.h"
#include "genie/core/random.h"
#include "genie/nn/autocast.h"
#include "genie/training/batches.h"
#include "genie/training/checkpoint_writer.h"
#include "genie/training/device.h"
#include "genie/training/metrics_log.h"
#include "genie/training/module_state.h"
#include "genie/training/optimizer.h"
#include "genie/training/recorded_step.h"
#include "genie/training/running_means.h"
#include "genie/training/schedule.h"
#include "genie/training/step.h"

namespace genie::training {
namespace {

using Clock = std::chrono::steady_clock;

// Beside the optimizer's tensors, whose names begin with a model's.
const std::string kGathering = "gathering.";

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

}  // namespace

/// The state of a run of one phase; each step of the loop is a method.
struct Trainer::Loop {
  Loop(Trainer& owner, std::shared_ptr<const data::ClipDataset> training,
       std::shared_ptr<const data::ClipDataset> validation)
      : phase(owner.phase_),
        config(owner.config_),
        settings(phase.settings()),
        hooks(owner.hooks_),
        make_cache(owner.make_cache_),
        processes(owner.processes_),
        device(training_device(config.training)),
        dtype(nn::dtype_named(config.training.dtype)),
        training_clips(std::move(training)),
        validation_clips(std::move(validation)),
        config_yaml(config::to_yaml(config)),
        optimizer(phase.model(), settings, processes, config.training.shard_optimizer),
        stepper(make_step()) {
    phase.share(processes);
    if (processes.first())
      writer.emplace(owner.directory_ + "/checkpoints", config.training.keep_last,
                     config.training.keep_every);
    restore(owner);
    if (processes.first()) log.emplace(owner.directory_ + "/metrics.jsonl", step);
  }

  std::unique_ptr<Step> make_step() {
    const StepPlace place{.device = device, .dtype = dtype};
    if (config.training.cuda_graph)
      return std::make_unique<RecordedStep>(phase, optimizer, place, make_cuda_graph(device));
    return std::make_unique<OrdinaryStep>(phase, optimizer, processes, place,
                                          static_cast<uint64_t>(config.training.seed));
  }

  /// The first process reads the newest checkpoint and sends it to the others.
  void restore(const Trainer& owner) {
    const std::string directory = owner.directory_ + "/checkpoints";
    std::optional<CheckpointData> data;
    if (processes.first()) {
      std::string warning;
      const std::optional<std::string> latest = latest_checkpoint(directory, &warning);
      if (!warning.empty() && hooks.show_progress) fprintf(stderr, "%s", warning.c_str());
      if (latest) {
        check(owner.resume_, directory,
              " already holds checkpoints; --resume continues them, another --out starts anew");
        data = load_checkpoint(*latest);
        copy_tensors(data->model, module_state(phase.model()), phase.name());
      }
    }
    // Weights that were saved by themselves (save_genie) have no optimizer state yet.
    const bool trained = data && (data->state.step > 0 || !data->optimizer.empty());
    std::vector<double> about = {0, 0, 0, 0, 0};
    if (data) {
      const auto& numbers = data->state.numbers;
      const auto counted = [&](const char* name) { return numbers.count(name) ? numbers.at(name) : 0.0; };
      about = {1, static_cast<double>(data->state.step), trained ? 1.0 : 0.0, counted("bad_steps"),
               counted("bad_in_a_row")};
      means.load_state(numbers);
      TensorMap gathering;
      for (auto& [name, tensor] : data->optimizer) {
        if (name.starts_with(kGathering)) gathering[name.substr(kGathering.size())] = tensor;
      }
      phase.set_gathering(gathering);
      std::erase_if(data->optimizer, [](const auto& item) { return item.first.starts_with(kGathering); });
    }
    about = processes.sum(about);
    if (about[0] == 0) initialize();
    std::vector<at::Tensor> tensors;
    for (const auto& item : module_state(phase.model())) tensors.push_back(item.second);
    processes.broadcast(tensors);
    if (about[2] > 0) optimizer.load_state(data ? data->optimizer : TensorMap());
    step = static_cast<int64_t>(about[1]);
    bad_steps = static_cast<int64_t>(about[3]);
    bad_in_a_row = static_cast<int64_t>(about[4]);
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
    options.quiet = !hooks.show_progress || !processes.first();
    if (!begin_batches()) return Outcome::stopped;
    ProgressLine progress(phase.name(), settings.steps, step, options);
    phase.model().train();
    begin = Clock::now();
    log_begin = begin;
    logged_step = step;
    while (step < settings.steps) {
      if (agreed_to_stop()) {
        save();
        if (writer) writer->wait();
        return Outcome::stopped;
      }
      train_step();
      if (progress.due())
        progress.update(step, {{"loss", last_loss}},
                        batches->wait_seconds() / std::max(seconds_since(begin), 1e-9));
      if (step % config.training.log_every == 0 || step == settings.steps) log_means();
      if (step % config.training.validate_every == 0 || step == settings.steps) {
        const Metrics metrics = validate();
        if (!options.quiet) progress.print(describe(metrics));
      }
      if (step % config.training.checkpoint_every == 0 || step == settings.steps) save();
    }
    if (writer) writer->wait();
    if (batches) progress.print(concat(phase.name(), ": peak memory ", describe_peak_memory(device)));
    return Outcome::finished;
  }

  /// False where it was asked to stop meanwhile.
  bool begin_batches() {
    if (step >= settings.steps) return true;
    const data::LoaderOptions options = loader_options(config, phase.name(), processes);
    if (!make_cache) {
      batches = video_batches(training_clips, options, step, device);
      return true;
    }
    const std::shared_ptr<const TokenCache> cache = make_cache();
    if (cache) batches = cached_batches(cache, options, step, device);
    return cache != nullptr;
  }

  bool agreed_to_stop() {
    const bool stop = hooks.should_stop && hooks.should_stop();
    return processes.sum({stop ? 1.0 : 0.0})[0] > 0;
  }

  void train_step() {
    const std::vector<Part> parts = batches->next(settings.accumulation);
    const StepResult result = stepper->take(++step, parts);
    if (result.finite()) {
      bad_in_a_row = 0;
      means.add("loss", at::scalar_tensor(result.loss, at::kDouble));
      means.add("gradient_norm", at::scalar_tensor(result.gradient_norm, at::kDouble));
      for (const auto& [name, value] : result.values) means.add(name, value);
    } else {
      skip_bad_step();
    }
    phase.after_step(step, !result.finite());
    last_loss = result.loss;
    last_rate = learning_rate(settings, step);
  }

  void skip_bad_step() {
    ++bad_steps;
    ++bad_in_a_row;
    if (bad_in_a_row < config.training.max_bad_steps) return;
    const std::string good = writer ? writer->last_good() : "";
    throw Error(concat(phase.name(), ": loss or gradient was not finite for ", bad_in_a_row,
                       " steps in a row, up to step ", step, "; the last good checkpoint is ",
                       good.empty() ? "none" : good, "; lower training.", phase.name(),
                       ".learning_rate or look at the data"));
  }

  void log_means() {
    Metrics metrics = means.take();
    if (!processes.first()) {
      phase.gathered();
      return;
    }
    for (auto& item : phase.gathered()) metrics.push_back(std::move(item));
    const std::string alarm = phase.alarm();
    if (!alarm.empty() && alarm != last_alarm)
      fprintf(stderr, "\n%s step %lld: warning: %s\n", phase.name().c_str(), static_cast<long long>(step),
              alarm.c_str());
    last_alarm = alarm;
    const double elapsed = seconds_since(log_begin), waited = batches->wait_seconds();
    metrics.emplace_back("learning_rate", last_rate);
    metrics.emplace_back("steps_per_second",
                         static_cast<double>(step - logged_step) / std::max(elapsed, 1e-9));
    metrics.emplace_back("data_wait_seconds", waited - logged_wait);
    metrics.emplace_back("compute_seconds", elapsed - (waited - logged_wait));
    metrics.emplace_back("bad_steps", static_cast<double>(bad_steps));
    metrics.emplace_back("peak_memory_gib", peak_host_memory_gib());
    if (!device.is_cpu()) metrics.emplace_back("peak_device_memory_gib", peak_device_memory_gib(device));
    logged_step = step;
    logged_wait = waited;
    log_begin = Clock::now();
    emit(metrics);
  }

  Metrics validate() {
    if (!processes.first() || !validation_clips || validation_clips->size() == 0) return {};
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
    data.optimizer = optimizer.state();
    if (!writer) return;
    for (const auto& [name, tensor] : phase.gathering()) data.optimizer[kGathering + name] = tensor;
    data.model = module_state(phase.model());
    data.state.phase = phase.name();
    data.state.step = step;
    data.state.seed = static_cast<uint64_t>(config.training.seed);
    data.state.loader_position = step;
    data.state.config_hash = concat(std::hex, stable_hash(config_yaml));
    data.state.numbers = means.state();
    data.state.numbers["bad_steps"] = static_cast<double>(bad_steps);
    data.state.numbers["bad_in_a_row"] = static_cast<double>(bad_in_a_row);
    data.config_yaml = config_yaml;
    writer->write_async(data);
  }

  Phase& phase;
  const config::Config& config;
  const config::PhaseConfig& settings;
  const TrainerHooks& hooks;
  const CacheMaker& make_cache;
  const Processes& processes;
  at::Device device;
  at::ScalarType dtype;
  std::shared_ptr<const data::ClipDataset> training_clips, validation_clips;
  std::string config_yaml;
  AdamW optimizer;
  std::unique_ptr<Step> stepper;
  std::optional<CheckpointWriter> writer;  ///< of the first process
  std::optional<MetricsLog> log;           ///< of the first process
  std::unique_ptr<Batches> batches;        ///< none where no step is left

  int64_t step = 0;  ///< optimizer steps done
  int64_t bad_steps = 0, bad_in_a_row = 0, logged_step = 0;
  double last_loss = 0, last_rate = 0, logged_wait = 0;
  std::string last_alarm;
  RunningMeans means;
  Clock::time_point begin, log_begin;
};

Trainer::Trainer(Phase& phase, const config::Config& config, std::string directory, bool resume,
                 TrainerHooks hooks, const Processes& processes)
    : phase_(phase),
      config_(config),
      directory_(std::move(directory)),
      resume_(resume),
      hooks_(std::move(hooks)),
      processes_(processes) {}

Outcome Trainer::run(std::shared_ptr<const data::ClipDataset> training,
                     std::shared_ptr<const data::ClipDataset> validation) {
  Loop loop(*this, std::move(training), std::move(validation));
  return loop.run();
}

}  // namespace genie::training
