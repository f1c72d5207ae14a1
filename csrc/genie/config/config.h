#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "genie/config/data_config.h"
#include "genie/config/jepa_config.h"
#include "genie/config/model_config.h"

namespace genie::config {

/// How MaskGIT decodes a frame.
struct InferenceConfig {
  using IsSection = void;
  int64_t steps = 25;
  double temperature = 2.0;
  std::string schedule = "cosine";
  std::string unmasking = "confidence";
  int64_t top_k = 0;
  double top_p = 1.0;
  int64_t history = 32;
  std::string dtype = "float32";

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("steps", s.steps, "MaskGIT steps a frame", between(1, 4096));
    visit("temperature", s.temperature, "divides the logits; 0 takes the most likely token",
          between(0, 1000));
    visit("schedule", s.schedule, "share of tokens still masked over the steps",
          one_of({"cosine", "linear"}));
    visit("unmasking", s.unmasking, "which sampled tokens a step keeps", one_of({"confidence", "random"}));
    visit("top_k", s.top_k, "sample among the k most likely tokens; 0 among all", at_least(0));
    visit("top_p", s.top_p, "sample among the likeliest tokens that hold this probability", between(1e-6, 1));
    visit("history", s.history, "frames a session can be rewound by; it holds no more", between(0, 1e6));
    visit(
        "dtype", s.dtype,
        "of a session's matrix multiplications and caches; bfloat16 needs a processor that has it, or a GPU",
        one_of({"float32", "bfloat16"}));
  }
};

/// One phase of training: its length, batch and optimizer.
struct PhaseConfig {
  using IsSection = void;
  int64_t steps = 1000;
  int64_t batch_size = 4;
  int64_t accumulation = 1;
  double learning_rate = 3e-4;
  double final_learning_rate = 0;
  std::string schedule = "cosine";
  int64_t warmup_steps = 100;
  double decay_fraction = 0.2;
  double beta1 = 0.9;
  double beta2 = 0.9;
  double epsilon = 1e-8;
  double weight_decay = 1e-4;
  double final_weight_decay = -1;
  double clip_gradient_norm = 1.0;
  int64_t num_frames = 0;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("steps", s.steps, "optimizer steps", at_least(0));
    visit("batch_size", s.batch_size, "clips a step and process", between(1, 1e6));
    visit("accumulation", s.accumulation, "parts a batch is computed in, one after another, to save memory",
          between(1, 1e6));
    visit("learning_rate", s.learning_rate, "AdamW's, after warm-up", between(0, 10));
    visit("final_learning_rate", s.final_learning_rate, "at the last step (schedules other than constant)",
          between(0, 10));
    visit("schedule", s.schedule,
          "after a linear warm-up; wsd: constant, then a linear fall in the last decay_fraction",
          one_of({"constant", "linear", "cosine", "wsd"}));
    visit("warmup_steps", s.warmup_steps, "steps of linear warm-up from 0", at_least(0));
    visit("decay_fraction", s.decay_fraction, "share of the steps in which wsd falls", between(0, 1));
    visit("beta1", s.beta1, "AdamW's first moment decay", between(0, 0.99999));
    visit("beta2", s.beta2, "AdamW's second moment decay", between(0, 0.9999999));
    visit("epsilon", s.epsilon, "AdamW's", greater_than(0));
    visit("weight_decay", s.weight_decay, "AdamW's, on matrices only (not on biases, norms, embeddings)",
          at_least(0));
    visit("final_weight_decay", s.final_weight_decay,
          "at the last step, along a half cosine; -1 leaves weight_decay as it is", at_least(-1));
    visit("clip_gradient_norm", s.clip_gradient_norm, "greatest norm of the gradient; 0 does not clip",
          at_least(0));
    visit("num_frames", s.num_frames, "T of this phase's clips; 0 is data.num_frames", between(0, 1024));
  }
};

/// How training runs, and one subsection a phase.
struct TrainingConfig {
  using IsSection = void;
  int64_t seed = 0;
  std::string dtype = "float32";
  std::string device = "auto";
  int64_t num_threads = 0;
  int64_t checkpoint_every = 1000;
  int64_t keep_last = 2;
  int64_t keep_every = 0;
  int64_t validate_every = 500;
  int64_t validation_clips = 32;
  int64_t log_every = 10;
  int64_t max_bad_steps = 20;
  bool shard_optimizer = false;
  bool token_cache = false;
  bool cuda_graph = false;
  PhaseConfig tokenizer;
  PhaseConfig latent_action;
  PhaseConfig dynamics;
  PhaseConfig cotrain{.steps = 0};
  PhaseConfig jepa;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("seed", s.seed, "of everything random", at_least(0));
    visit("dtype", s.dtype, "of the matrix multiplications; weights stay float32",
          one_of({"float32", "bfloat16"}));
    visit("device", s.device, "auto takes a CUDA device where there is one", one_of({"auto", "cpu", "cuda"}));
    visit("num_threads", s.num_threads, "of the CPU; 0 is one a core", between(0, 4096));
    visit("checkpoint_every", s.checkpoint_every, "steps; a phase's end writes one too", at_least(1));
    visit("keep_last", s.keep_last, "newest checkpoints of a phase that are kept", at_least(1));
    visit("keep_every", s.keep_every, "checkpoints at multiples of so many steps are kept for good; 0 none",
          at_least(0));
    visit("validate_every", s.validate_every, "steps; a phase's end validates too", at_least(1));
    visit("validation_clips", s.validation_clips, "clips of held-out episodes a validation looks at",
          at_least(1));
    visit("log_every", s.log_every, "steps between lines in metrics.jsonl", at_least(1));
    visit("max_bad_steps", s.max_bad_steps,
          "steps in a row with a loss or gradient that is not finite before training stops", at_least(1));
    visit("shard_optimizer", s.shard_optimizer,
          "with several processes, each keeps AdamW's moments of a part of the parameters (ZeRO stage 1)",
          {});
    visit("token_cache", s.token_cache,
          "phase dynamics computes each clip's tokens and latent actions once, into a file of the run "
          "directory, and reads "
          "them at each step; not with random_crop or horizontal_flip",
          {});
    visit(
        "cuda_graph", s.cuda_graph,
        "record a training step on a GPU once and replay it, for small models (docs/training.md says what it "
        "refuses); never run on a GPU yet",
        {});
    visit("tokenizer", s.tokenizer, "phase tokenizer", {});
    visit("latent_action", s.latent_action, "phase latent_action", {});
    visit("dynamics", s.dynamics, "phase dynamics", {});
    visit("cotrain", s.cotrain,
          "phase cotrain: the latent action model, on its own losses, and the dynamics model together; with "
          "steps above 0 "
          "it takes the place of the phases latent_action and dynamics",
          {});
    visit("jepa", s.jepa, "phase jepa", {});
  }
};

/// The whole configuration of a run.
struct Config {
  using IsSection = void;
  DataConfig data;
  TokenizerConfig tokenizer;
  LatentActionConfig latent_action;
  DynamicsConfig dynamics;
  JepaConfig jepa;
  InferenceConfig inference;
  TrainingConfig training;

  template <class Self, class Visitor>
  static void fields(Self& s, Visitor&& visit) {
    visit("data", s.data, "where clips come from", {});
    visit("tokenizer", s.tokenizer, "video tokenizer", {});
    visit("latent_action", s.latent_action, "latent action model", {});
    visit("dynamics", s.dynamics, "dynamics model", {});
    visit("jepa", s.jepa, "video encoder trained by masked latent prediction (phase jepa)", {});
    visit("inference", s.inference, "generation", {});
    visit("training", s.training, "how training runs", {});
  }
};

/// Reads a configuration. Missing keys keep their defaults. Throws Error naming the file, line and key, what
/// is allowed and, for an unknown key, the nearest known one.
Config load_config(const std::string& path);
Config parse_config(const std::string& yaml, const std::string& name = "<string>");

/// Sets "section.key=value" entries, checked like the file's own. The value is taken as it stands, or as YAML
/// where it is quoted. Where one is wrong, the configuration stays as it was.
void apply_overrides(Config& config, const std::vector<std::string>& overrides);

/// Checks each key's range and what no single key shows (dim and heads, mask rates' order, ...); throws Error
/// naming keys and values. load_config, parse_config and apply_overrides call it.
void validate(const Config& config);

/// The configuration as YAML with every key; parse_config(to_yaml(c)) gives c back to the last bit.
/// `documented` adds a comment to each key: its meaning and what is allowed.
std::string to_yaml(const Config& config, bool documented = false);

/// A Markdown table a section: each key, its default, what is allowed, its meaning (docs/configuration.md).
std::string describe();

}  // namespace genie::config
