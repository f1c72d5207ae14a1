#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "config_testing.h"
#include "genie/config/config.h"

namespace genie::config {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string parse_error(const std::string& yaml) {
  return error_of([&] { parse_config(yaml, "run.yaml"); });
}

/// A fresh file or folder name, removed at the end.
struct TemporaryPath {
  std::string path = ::testing::TempDir() + "genie_config_errors_test.yaml";
  TemporaryPath() { std::filesystem::remove_all(path); }
  ~TemporaryPath() { std::filesystem::remove_all(path); }
};

TEST(ConfigErrors, UnknownKeysNameFileLineAndNearestKey) {
  EXPECT_EQ(parse_error("training:\n  tokenizer:\n    learning_rat: 1\n"),
            "run.yaml:3: unknown key training.tokenizer.learning_rat; did you mean "
            "training.tokenizer.learning_rate?");
  EXPECT_EQ(parse_error("# comment\n\nlearning_rate: 1\n"),
            "run.yaml:3: unknown key learning_rate; did you mean training.tokenizer.learning_rate or "
            "training.latent_action.learning_rate or training.dynamics.learning_rate?");
  EXPECT_EQ(parse_error("tokeniser:\n  patch_size: 4\n"),
            "run.yaml:1: unknown key tokeniser; did you mean tokenizer?");
  EXPECT_THAT(parse_error("Training: {}"), HasSubstr("unknown key Training; did you mean training?"));
  EXPECT_THAT(parse_error("data: {frobnicate: 1}"), HasSubstr("the keys of data are path, validation_path"));
  EXPECT_THAT(parse_error("training.seed: 1"),
              HasSubstr("unknown key training.seed; write it in its section: 'training:', below it 'seed:'"));
}

TEST(ConfigErrors, IllTypedValuesNameWhatIsAllowedAndWhatWasFound) {
  EXPECT_EQ(parse_error("training:\n  seed: -1\n"),
            "run.yaml:2: training.seed: expected an integer >= 0, found -1");
  EXPECT_EQ(parse_error("data: {num_frames: many}"),
            "run.yaml:1: data.num_frames: expected an integer from 2 to 1024, found many");
  EXPECT_EQ(parse_error("data: {num_frames: 2.5}"),
            "run.yaml:1: data.num_frames: expected an integer from 2 to 1024, found 2.5 (not whole)");
  EXPECT_THAT(parse_error("data: {num_frames: '16'}"), HasSubstr("found '16' (remove the quotes)"));
  EXPECT_THAT(parse_error("data: {num_frames: 1_000}"), HasSubstr("found 1_000"));
  EXPECT_THAT(parse_error("data: {num_frames: 0x10}"), HasSubstr("found 0x10"));
  EXPECT_THAT(parse_error("training: {seed: 9223372036854775808}"), HasSubstr("(beyond 64 bits)"));
  EXPECT_THAT(parse_error("training: {seed: 1e17}"), HasSubstr("(write large integers with all digits)"));
  EXPECT_THAT(parse_error("data: {fps: fast}"), HasSubstr("data.fps: expected a number >= 0, found fast"));
  EXPECT_THAT(parse_error("data: {horizontal_flip: yes}"),
              HasSubstr("data.horizontal_flip: expected true or false, found yes (write true)"));
  EXPECT_THAT(parse_error("data: {horizontal_flip: 0}"), HasSubstr("found 0 (write false)"));
  EXPECT_THAT(parse_error("data: {horizontal_flip: maybe}"), HasSubstr("found maybe"));
}

TEST(ConfigErrors, IllShapedValuesNameWhatWasFound) {
  EXPECT_EQ(parse_error("data:\n  num_frames: [16, 8]\n"),
            "run.yaml:2: data.num_frames: expected an integer from 2 to 1024, found a list");
  EXPECT_THAT(parse_error("data: {path: {a: b}}"), HasSubstr("data.path: expected text, found a section"));
  EXPECT_THAT(parse_error("data:\n  path:\n"),
              HasSubstr("data.path: expected text, found no value ('' is the empty text)"));
  EXPECT_THAT(parse_error("data:\n  fps: ~\n"),
              HasSubstr("data.fps: expected a number >= 0, found no value"));
  EXPECT_EQ(parse_error("data:\n  filter: true\n"),
            "run.yaml:2: data.filter: expected a section with the keys enabled, min_motion, max_cut, "
            "min_brightness, classifier, classifier_threshold, found the value 'true'");
  EXPECT_THAT(parse_error("tokenizer: [1]"),
              HasSubstr("tokenizer: expected a section with the keys patch_size"));
  EXPECT_THAT(
      parse_error("- data\n"),
      AllOf(HasSubstr("expected a section with the sections data, tokenizer"), HasSubstr("found a list")));
  EXPECT_THAT(parse_error("hello"), HasSubstr("found the value hello"));
  EXPECT_THAT(parse_error("data: {[a]: 1}"), HasSubstr("data: expected a key, found a list"));
}

TEST(ConfigErrors, NumbersThatAreNotFiniteAreRejected) {
  for (const char* word : {".nan", ".NaN", "nan", ".inf", "-.inf", "inf", "Infinity"}) {
    const std::string error = parse_error(std::string("data: {fps: ") + word + "}");
    EXPECT_THAT(error, AllOf(HasSubstr("data.fps: expected a number >= 0"), HasSubstr("(not finite)")))
        << word;
  }
  EXPECT_THAT(parse_error("data: {fps: 1e999}"), HasSubstr("(beyond what a double holds)"));
  EXPECT_THAT(parse_error("training: {seed: .inf}"), HasSubstr("found .inf (not finite)"));
  Config config;
  config.training.tokenizer.weight_decay = std::nan("");
  EXPECT_EQ(error_of([&] { validate(config); }),
            "training.tokenizer.weight_decay: expected a number >= 0, found .nan (not finite)");
}

TEST(ConfigErrors, ValuesOutOfRangeNameTheRange) {
  EXPECT_THAT(parse_error("data: {num_frames: 1}"), HasSubstr("an integer from 2 to 1024, found 1"));
  EXPECT_THAT(parse_error("data: {num_frames: 1025}"), HasSubstr("found 1025"));
  EXPECT_THAT(parse_error("training: {dynamics: {epsilon: 0}}"),
              HasSubstr("training.dynamics.epsilon: expected a number > 0, found 0"));
  EXPECT_THAT(parse_error("dynamics: {max_mask_rate: 1.5}"),
              HasSubstr("dynamics.max_mask_rate: expected a number from 0 to 1, found 1.5"));
  Config config;
  config.training.dynamics.batch_size = 0;
  EXPECT_THAT(error_of([&] { validate(config); }), StartsWith("training.dynamics.batch_size: expected"));
}

TEST(ConfigErrors, WordsThatAreNotAChoiceNameTheChoicesAndTheNearest) {
  EXPECT_EQ(parse_error("training: {dtype: float16x}"),
            "run.yaml:1: training.dtype: expected one of float32, bfloat16, found float16x (did you mean "
            "bfloat16?)");
  EXPECT_EQ(
      parse_error("training: {dtype: BFloat16}"),
      "run.yaml:1: training.dtype: expected one of float32, bfloat16, found BFloat16 (upper and lower case "
      "matter: write bfloat16)");
  EXPECT_EQ(parse_error("inference: {schedule: 7}"),
            "run.yaml:1: inference.schedule: expected one of cosine, linear, found '7'");
}

TEST(ConfigErrors, KeysSetTwiceNameBothLines) {
  EXPECT_EQ(parse_error("data:\n  fps: 1\n  width: 8\n  fps: 2\n"),
            "run.yaml:4: data.fps is set twice, first in line 2");
  EXPECT_EQ(parse_error("data: {}\ntraining: {}\ndata: {}\n"),
            "run.yaml:3: data is set twice, first in line 1");
}

TEST(ConfigErrors, SyntaxErrorsNameLineAndColumn) {
  EXPECT_THAT(parse_error("data:\n  fps: [1\n"), StartsWith("run.yaml:3:1: not valid YAML: "));
  EXPECT_THAT(parse_error("data:\n\tfps: 1\n"), StartsWith("run.yaml:2:"));
  EXPECT_THAT(parse_error("data: *nowhere\n"), StartsWith("run.yaml:1:"));
  EXPECT_THAT(parse_error("data: {}\n---\ndata: {}\n"), HasSubstr("expected one YAML document, found 2"));
  EXPECT_THAT(parse_error(std::string(100000, '[')), HasSubstr("not valid YAML"));
}

TEST(ConfigErrors, FilesThatCannotBeReadSayWhy) {
  const TemporaryPath file;
  EXPECT_EQ(error_of([&] { load_config(file.path); }),
            file.path + ": no such file; expected a YAML configuration");
  std::filesystem::create_directory(file.path);
  EXPECT_EQ(error_of([&] { load_config(file.path); }),
            file.path + " is a directory; expected a YAML configuration file");
  EXPECT_THAT(error_of([&] { load_config(""); }), HasSubstr("no such file"));
}

TEST(ConfigErrors, ErrorsInAFileStartWithItsPathAndLine) {
  const TemporaryPath file;
  std::ofstream(file.path) << "training:\n  seed: x\n";
  EXPECT_EQ(error_of([&] { load_config(file.path); }),
            file.path + ":2: training.seed: expected an integer >= 0, found x");
  std::ofstream(file.path) << "dynamics: {min_mask_rate: 0.9, max_mask_rate: 0.5}\n";
  EXPECT_EQ(error_of([&] { load_config(file.path); }),
            file.path + ": dynamics.min_mask_rate = 0.9 is above dynamics.max_mask_rate = 0.5");
}

TEST(ConfigErrors, KeysThatContradictEachOtherAreNamedWithTheirValues) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"tokenizer: {encoder: {dim: 100, heads: 6}}",
       "tokenizer.encoder.dim = 100 is not divisible by tokenizer.encoder.heads = 6"},
      {"tokenizer: {decoder: {heads: 7}}", "tokenizer.decoder.heads = 7"},
      {"latent_action: {encoder: {heads: 7}}", "latent_action.encoder.heads = 7"},
      {"latent_action: {decoder: {heads: 7}}", "latent_action.decoder.heads = 7"},
      {"dynamics: {transformer: {dim: 100, heads: 6, head_dim: 0}}", "dynamics.transformer.dim = 100"},
      {"dynamics: {min_mask_rate: 0, max_mask_rate: 0}", "dynamics.max_mask_rate = 0 masks nothing"},
      {"training: {tokenizer: {learning_rate: 1e-4, final_learning_rate: 2e-4}}",
       "training.tokenizer.final_learning_rate = 2e-4 is above training.tokenizer.learning_rate = 1e-4"},
      {"training: {dynamics: {batch_size: 6, accumulation: 4}}", "training.dynamics.accumulation = 4"},
      {"training: {dynamics: {steps: 50}}", "warmup_steps = 100 is above training.dynamics.steps = 50"},
      {"training: {dynamics: {steps: 100, warmup_steps: 90, schedule: wsd}}", "decay_fraction = 0.2"},
      {"training: {dynamics: {num_frames: 1}}", "training.dynamics.num_frames = 1"},
      {"tokenizer: {quantizer: {update: loss, codebook_weight: 0}}",
       "tokenizer.quantizer.codebook_weight = 0"},
      {"latent_action: {quantizer: {update: loss, codebook_weight: 0}}", "latent_action.quantizer.update"},
      {"data: {fps: 10, stride: 2}", "data.fps = 10 and data.stride = 2"},
      {"data: {path: a.h5, validation_path: a.h5}", "data.validation_path is data.path = a.h5"},
      {"data: {height: 8, width: 8}", "latent_action.patch_size = 16 does not fit into a frame"},
      {"inference: {top_k: 1025}", "inference.top_k = 1025 is above tokenizer.quantizer.num_codes = 1024"}};
  for (const auto& [yaml, part] : cases) {
    EXPECT_THAT(parse_error(yaml), AllOf(StartsWith("run.yaml: "), HasSubstr(part))) << yaml;
  }
}

TEST(ConfigErrors, WhatIsUnusualButConsistentIsAccepted) {
  for (const char* yaml : {"training: {dynamics: {steps: 0}}", "training: {dynamics: {num_frames: 2}}",
                           "dynamics: {transformer: {dim: 100, heads: 6, head_dim: 32}}",
                           "data: {fps: 10, stride: 1}", "dynamics: {min_mask_rate: 1, max_mask_rate: 1}",
                           "training: {dynamics: {steps: 100, warmup_steps: 80, schedule: wsd}}",
                           "tokenizer: {quantizer: {num_codes: 2}}"}) {
    EXPECT_EQ(parse_error(yaml), "no error") << yaml;
  }
}

}  // namespace
}  // namespace genie::config
