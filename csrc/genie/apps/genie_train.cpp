// genie-train: trains the phases of a configuration. A thin main: everything it does is in genie/training.
#include <c10/util/Exception.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "genie/config/config.h"
#include "genie/core/signals.h"
#include "genie/training/run.h"

int main(int argc, char** argv) {
  // A file that may not grow any more is an error like a full disk, not the end.
  std::signal(SIGXFSZ, SIG_IGN);
  CLI::App app{
      "Train a Genie world model on plain video: video tokenizer, latent action model, dynamics model."};
  std::string config_path, phase = "all", data, out;
  std::vector<std::string> overrides;
  bool resume = false, dry_run = false;
  app.add_option("--config", config_path,
                 "YAML configuration (configs/*.yaml, keys in docs/configuration.md)")
      ->required();
  app.add_option(
         "--phase", phase,
         "tokenizer, latent_action, dynamics, cotrain, jepa, or all that the configuration trains for a "
         "Genie, one after the other")
      ->capture_default_str();
  app.add_option("--set", overrides, "override a key: section.key=value (may be repeated)");
  app.add_option("--data", data, "HDF5 video (docs/data_format.md); sets data.path");
  app.add_option("--out", out, "run directory, made where it is missing");
  app.add_flag("--resume", resume, "continue from the newest checkpoints in --out");
  app.add_flag("--dry-run", dry_run, "print parameters and memory, train nothing");
  app.footer(
      "Examples:\n"
      "  genie-train --config configs/coinrun_cpu.yaml --data coinrun_train.h5 --out runs/coinrun\n"
      "  genie-train --config configs/demo.yaml --data boxing.h5 --out runs/demo --phase tokenizer\n"
      "  genie-train --config configs/genie_16gb.yaml --dry-run\n"
      "  genie-train --config configs/coinrun.yaml --data F.h5 --out runs/X --set training.seed=1 --set "
      "data.fps=10");
  CLI11_PARSE(app, argc, argv);
  try {
    genie::config::Config config = genie::config::load_config(config_path);
    if (!data.empty()) overrides.push_back("data.path=" + data);
    genie::config::apply_overrides(config, overrides);
    if (dry_run) {
      std::fputs(genie::training::dry_run(config).c_str(), stdout);
      return 0;
    }
    genie::StopSignals signals(
        "stopping after this step; the state is being saved (a second signal ends at once)\n");
    genie::training::TrainerHooks hooks;
    hooks.should_stop = [] { return genie::stop_requested(); };
    const auto outcome = genie::training::train(config, out, phase, resume, hooks);
    if (outcome == genie::training::Outcome::stopped) {
      std::fprintf(stderr, "stopped; continue with --resume\n");
    } else {
      std::fprintf(stderr, "done; look at it with: genie-cpp eval --model %s --data FILE.h5\n", out.c_str());
    }
    return 0;
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "genie-train: error: %s\n", error.what_without_backtrace());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "genie-train: error: %s\n", error.what());
    return 1;
  }
}
