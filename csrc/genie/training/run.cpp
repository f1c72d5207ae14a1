#include "genie/training/run.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/Generator.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>

#include "genie/core/error.h"
#include "genie/core/file.h"
#include "genie/core/memory.h"
#include "genie/core/random.h"
#include "genie/data/clip_dataset.h"
#include "genie/ops/unverified_kernels.h"
#include "genie/training/checkpoint.h"
#include "genie/training/checkpoint_writer.h"
#include "genie/training/device.h"
#include "genie/training/jepa_phase.h"
#include "genie/training/module_state.h"
#include "genie/training/recorded_step.h"
#include "genie/training/token_fill.h"

namespace genie::training {
namespace {

namespace fs = std::filesystem;

/// The tensors a phase trains, named as its checkpoints name them.
TensorMap phase_state(models::Genie& genie, const std::string& phase) {
  return module_state(make_phase(phase, genie)->model());
}

/// Loads a phase's newest checkpoint into its model; false where there is none.
bool load_phase(models::Genie& genie, const std::string& out, const std::string& phase) {
  const std::optional<std::string> latest =
      latest_checkpoint(out + "/" + phase + "/checkpoints", nullptr, false);
  if (!latest) return false;
  copy_tensors(load_checkpoint(*latest, false).model, phase_state(genie, phase), phase);
  return true;
}

void check_phase(const config::Config& config, const std::string& phase) {
  const std::vector<std::string> names = phase_names(config);
  if (phase == "all" || phase == "jepa" || std::find(names.begin(), names.end(), phase) != names.end())
    return;
  check(phase != "cotrain", "phase cotrain has no steps; set training.cotrain.steps, or train the phases ",
        "latent_action and dynamics");
  check(phase != "latent_action" && phase != "dynamics",
        "with training.cotrain.steps > 0 phase cotrain takes the place of ", phase,
        "; train that, or set training.cotrain.steps to 0");
  throw Error("unknown phase '" + phase +
              "'; allowed: tokenizer, latent_action, dynamics, cotrain, jepa, all");
}

struct Clips {
  std::shared_ptr<const data::ClipDataset> training, validation;
};

Clips open_clips(const config::Config& config, int64_t num_frames) {
  config::DataConfig data = config.data;
  check(!data.path.empty(), "no training data: give --data FILE.h5 or set data.path");
  data.num_frames = num_frames;
  const auto file = std::make_shared<const data::VideoFile>(data.path);
  if (!data.validation_path.empty()) {
    const auto other = std::make_shared<const data::VideoFile>(data.validation_path);
    return {std::make_shared<const data::ClipDataset>(file, data, data::Split::all),
            std::make_shared<const data::ClipDataset>(other, data, data::Split::all)};
  }
  Clips clips{std::make_shared<const data::ClipDataset>(file, data, data::Split::training), nullptr};
  if (data.validation_fraction > 0)
    clips.validation = std::make_shared<const data::ClipDataset>(file, data, data::Split::validation);
  return clips;
}

void report_filter(const data::ClipDataset& clips, const config::DataConfig& data, bool show) {
  if (!data.filter.enabled || !show) return;
  const data::FilterReport& report = clips.filter_report();
  fprintf(
      stderr,
      "quality filter: %lld clips kept; dropped: %lld still, %lld cut, %lld black, %lld by the classifier\n",
      static_cast<long long>(report.kept), static_cast<long long>(report.still),
      static_cast<long long>(report.cut), static_cast<long long>(report.black),
      static_cast<long long>(report.classified));
}

/// Loads phase `name`, which comes before the `wanted` one, into all processes. The phases that read tokens
/// or actions need it.
void load_earlier(models::Genie& genie, const std::string& out, const std::string& name,
                  const std::string& wanted, const Processes& processes) {
  if (wanted != "dynamics" && wanted != "cotrain") return;
  if (processes.first()) {
    check(load_phase(genie, out, name), "phase ", wanted, " reads what a trained ", name, " gives, and ", out,
          "/", name, " has no checkpoint; train it first: --phase ", name);
  }
  std::vector<at::Tensor> tensors;
  for (const auto& item : phase_state(genie, name)) tensors.push_back(item.second);
  processes.broadcast(tensors);
}

constexpr const char* kKernelsOff =
    "the CUDA kernels are off, since none was ever run on a GPU: computing with torch's operations "
    "(GENIE_UNVERIFIED_CUDA_KERNELS=1 turns them on)\n";

constexpr const char* kGraphUntried =
    "training.cuda_graph: training steps are recorded as a CUDA graph, which was never run on a GPU; compare "
    "the first losses with training.cuda_graph=false\n";

void write_config(const config::Config& config, const std::string& out) {
  replace_text(out + "/config.yaml", config::to_yaml(config, true));
}

}  // namespace

Outcome train(const config::Config& config, const std::string& out, const std::string& phase, bool resume,
              const TrainerHooks& hooks, const std::string& process_group) {
  config::validate(config);
  check_phase(config, phase);
  check(!out.empty(), "no run directory: give --out DIRECTORY");
  const bool all = phase == "all";
  const c10::Device device = training_device(config.training);
  const Processes processes(process_group, device);
  if (device.is_cuda() && ops::cuda_kernels_compiled() && !ops::cuda_kernels_enabled() &&
      hooks.show_progress && processes.first())
    fprintf(stderr, "%s", kKernelsOff);
  if (config.training.cuda_graph) {
    for (const std::string& name : all ? phase_names(config) : std::vector<std::string>{phase})
      check_recordable(config, name, device, processes);
    if (hooks.show_progress) fprintf(stderr, "%s", kGraphUntried);
  }
  const KeepFreedMemory keep_freed_memory;
  // Not for the number there is already: the call switches off MKL's dynamic mode, which costs a tenth.
  const auto threads = static_cast<int>(config.training.num_threads);
  if (threads > 0 && threads != at::get_num_threads()) at::set_num_threads(threads);
  // Data errors come before anything is written. Phases with clips of one length share what was opened, so
  // that the quality filter reads the file once.
  std::map<int64_t, Clips> opened;
  const auto clips_of = [&](int64_t num_frames) -> const Clips& {
    if (num_frames <= 0) num_frames = config.data.num_frames;
    if (!opened.count(num_frames)) opened[num_frames] = open_clips(config, num_frames);
    return opened[num_frames];
  };
  report_filter(*clips_of(0).training, config.data, hooks.show_progress && processes.first());
  if (processes.first()) {
    fs::create_directories(out);
    write_config(config, out);
  }

  at::manual_seed(mix_seed(static_cast<uint64_t>(config.training.seed), Stream::initialization));
  if (phase == "jepa") {
    const std::unique_ptr<Phase> jepa = make_jepa_phase(config, device);
    const Clips& clips = clips_of(jepa->settings().num_frames);
    return Trainer(*jepa, config, out + "/jepa", resume, hooks, processes)
        .run(clips.training, clips.validation);
  }
  models::Genie genie(config);
  genie->to(device);
  genie->eval();
  for (const std::string& name : phase_names(config)) {
    if (!all && name != phase) {
      load_earlier(genie, out, name, phase, processes);
      continue;
    }
    const std::unique_ptr<Phase> current = make_phase(name, genie);
    const Clips& clips = clips_of(current->settings().num_frames);
    Trainer trainer(*current, config, out + "/" + name, resume, hooks, processes);
    if (name == "dynamics" && config.training.token_cache) {
      trainer.use_cache([&] {
        return fill_token_cache(genie, *clips.training, out + "/" + name + "/token_cache", processes, hooks);
      });
    }
    if (trainer.run(clips.training, clips.validation) == Outcome::stopped) return Outcome::stopped;
    genie->eval();
    if (!all) break;
  }
  return Outcome::finished;
}

models::Genie load_genie(const std::string& run_directory, bool allow_untrained,
                         std::vector<std::string>* untrained) {
  check(fs::exists(run_directory + "/config.yaml"), run_directory,
        " is no run directory: it has no config.yaml; train one with genie-train --out ", run_directory);
  models::Genie genie(config::load_config(run_directory + "/config.yaml"));
  for (const std::string& name : phase_names(genie->config())) {
    if (load_phase(genie, run_directory, name)) continue;
    check(allow_untrained, run_directory, ": phase ", name, " is not trained yet; run genie-train --phase ",
          name, " --out ", run_directory);
    if (!untrained) continue;
    for (const std::string& model : models_of_phase(name)) untrained->push_back(model);
  }
  genie->eval();
  return genie;
}

void save_genie(models::Genie& genie, const std::string& run_directory) {
  check(!fs::exists(run_directory + "/config.yaml"), run_directory,
        " already holds a run; choose another directory");
  fs::create_directories(run_directory);
  for (const std::string& name : phase_names(genie->config())) {
    CheckpointData data;
    data.model = phase_state(genie, name);
    data.state.phase = name;
    data.state.seed = static_cast<uint64_t>(genie->config().training.seed);
    data.config_yaml = config::to_yaml(genie->config());
    CheckpointWriter writer(run_directory + "/" + name + "/checkpoints", 1, 0);
    writer.write_async(data);
    writer.wait();
  }
  // Last: without it this is no run directory.
  write_config(genie->config(), run_directory);
}

}  // namespace genie::training
