#include "genie/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>

#include "config_testing.h"
#include "genie/config/entry.h"
#include "genie/config/nearest_key.h"
#include "genie/config/text.h"

namespace genie::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Config, EmptyDocumentsAreTheDefaults) {
  for (const char* yaml : {"", "\n", "# nothing\n", "---\n", "{}", "training:\n", "data:\n  filter:\n"}) {
    EXPECT_EQ(to_yaml(parse_config(yaml)), to_yaml(Config{})) << yaml;
  }
}

TEST(Config, FilesMayHoldAKeyThatWasRetired) {
  const Config c = parse_config("training:\n  slow_bfloat16: true\n  dtype: bfloat16\n");
  EXPECT_EQ(c.training.dtype, "bfloat16");
  EXPECT_THAT(to_yaml(c), ::testing::Not(HasSubstr("slow_bfloat16")));
}

TEST(Config, DefaultsAreValid) { EXPECT_NO_THROW(validate(Config{})); }

TEST(Config, ReadsEachTypeOfValue) {
  const Config c = parse_config(
      "data: {path: /a/b c.h5, fps: 12.5, num_frames: 1e1, height: 72.0, horizontal_flip: True}\n"
      "training: {seed: 9223372036854775807, tokenizer: {learning_rate: 1e-3, steps: +700}, device: 'cpu'}\n"
      "dynamics: {min_mask_rate: .5, max_mask_rate: 1}\n");
  EXPECT_EQ(c.data.path, "/a/b c.h5");
  EXPECT_EQ(c.data.fps, 12.5);
  EXPECT_EQ(c.data.num_frames, 10);
  EXPECT_EQ(c.data.height, 72);
  EXPECT_EQ(c.data.width, 64);
  EXPECT_TRUE(c.data.horizontal_flip);
  EXPECT_EQ(c.training.seed, std::numeric_limits<int64_t>::max());
  EXPECT_EQ(c.training.tokenizer.learning_rate, 1e-3);
  EXPECT_EQ(c.training.tokenizer.steps, 700);
  EXPECT_EQ(c.training.device, "cpu");
  EXPECT_EQ(c.dynamics.min_mask_rate, 0.5);
}

TEST(Config, WritingAndReadingBackKeepsEveryBit) {
  constexpr uint64_t seed = 7;
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 50; ++round) {
    Config config;
    for (const Entry& entry : list_entries(config)) {
      auto* const* value = std::get_if<double*>(&entry.member);
      if (!value) continue;
      // Any bits where the key's range takes them, else a number between 0 and 1.
      const uint64_t bits = random();
      std::memcpy(*value, &bits, sizeof(bits));
      if (!problem_with(entry).empty()) **value = 1 - static_cast<double>(random() >> 11) * 0x1p-53;
      if (!problem_with(entry).empty()) **value = std::get<Range>(entry.constraint).max;
    }
    config.dynamics.min_mask_rate = config.dynamics.max_mask_rate / 3;
    config.jepa.masks.min_aspect = config.jepa.masks.max_aspect;
    config.data.stride = 1;
    for (PhaseConfig* phase : {&config.training.tokenizer, &config.training.latent_action,
                               &config.training.dynamics, &config.training.cotrain, &config.training.jepa}) {
      phase->final_learning_rate = phase->learning_rate / 7;
    }
    const std::string yaml = to_yaml(config);
    Config back = parse_config(yaml);
    const std::vector<Entry> written = list_entries(config), read = list_entries(back);
    for (size_t i = 0; i < written.size(); ++i) {
      auto* const* value = std::get_if<double*>(&written[i].member);
      if (!value) continue;
      ASSERT_EQ(std::memcmp(*value, std::get<double*>(read[i].member), 8), 0) << written[i].key;
    }
    ASSERT_EQ(to_yaml(back), yaml);
  }
}

TEST(Config, DocumentedYamlReadsBackAndExplainsEveryKey) {
  Config config;
  config.data.path = "a # b: c.h5";
  const std::string yaml = to_yaml(config, true);
  EXPECT_EQ(to_yaml(parse_config(yaml)), to_yaml(config));
  EXPECT_THAT(yaml, HasSubstr("    warmup_steps: 100  # steps of linear warm-up from 0 [an integer >= 0]\n"));
  EXPECT_THAT(yaml, HasSubstr("dtype: float32  # of the matrix multiplications; weights stay float32 [one of "
                              "float32, bfloat16]\n"));
  EXPECT_EQ(to_yaml(config).find("warm-up"), std::string::npos);
}

TEST(Config, AnyTextSurvivesWritingAndReading) {
  const std::vector<std::string> words = {"",    "null", "~",   "true", "No", "12",
                                          "1e3", ".nan", "---", "...",  "?"};
  const std::vector<std::string> quotes = {"it's", "\"q\"", "'", "''", "\"", "back\\slash", "C:\\v.h5"};
  const std::vector<std::string> blanks = {" ",     "a b",  "trailing ", "line\nbreak",
                                           "tab\t", "\r\n", "\x01\x7f"};
  const std::vector<std::string> marks = {"a: b", "a #b", "- x", "[1]", "{a}", "&a",
                                          "*a",   "!t",   "%",   "@",   "a,b"};
  std::vector<std::string> texts = {"/d/clip.h5", "../x", "\xc3\xa9t\xc3\xa9"};
  for (const auto& more : {words, quotes, blanks, marks}) texts.insert(texts.end(), more.begin(), more.end());
  for (const std::string& text : texts) {
    Config config;
    config.data.path = text;
    EXPECT_EQ(parse_config(to_yaml(config)).data.path, text) << to_yaml(config).substr(0, 60);
  }
  EXPECT_EQ(yaml_string("/data/clip_1.h5"), "/data/clip_1.h5");
  EXPECT_EQ(yaml_string("on"), "'on'");
}

TEST(Config, NumbersAreWrittenAsTheShortestTextThatReadsBack) {
  EXPECT_EQ(number_text(3e-4), "3e-4");
  EXPECT_EQ(number_text(0.1), "0.1");
  EXPECT_EQ(number_text(1.0 / 3), "0.3333333333333333");
  EXPECT_EQ(number_text(4), "4");
  EXPECT_EQ(number_text(1e30), "1e30");
  EXPECT_EQ(number_text(5e-324), "5e-324");
  EXPECT_EQ(number_text(1e10), "1e10");
}

TEST(Config, OverridesSetValuesOfEachTypeAndTheLastOneWins) {
  Config c;
  apply_overrides(c, {"training.seed=3", "training.seed= 1e2 ", "training.tokenizer.learning_rate=1e-3",
                      "data.filter.enabled=true", "data.path=/x/a=b: c#.h5", "data.validation_path='it''s'"});
  EXPECT_EQ(c.training.seed, 100);
  EXPECT_EQ(c.training.tokenizer.learning_rate, 1e-3);
  EXPECT_TRUE(c.data.filter.enabled);
  EXPECT_EQ(c.data.path, "/x/a=b: c#.h5");
  EXPECT_EQ(c.data.validation_path, "it's");
  apply_overrides(c, {"data.path=", "data.validation_path=''"});
  EXPECT_EQ(c.data.path, "");
  EXPECT_EQ(c.data.validation_path, "");
}

TEST(Config, OverridesAreCheckedTogetherAfterTheLast) {
  Config c;
  apply_overrides(c, {"training.tokenizer.accumulation=3", "training.tokenizer.batch_size=9"});
  EXPECT_EQ(c.training.tokenizer.batch_size, 9);
}

TEST(Config, AWrongOverrideLeavesTheConfigurationAsItWas) {
  Config c;
  EXPECT_THROW(apply_overrides(c, {"training.seed=3", "training.seed=x"}), Error);
  EXPECT_THROW(apply_overrides(c, {"training.seed=3", "training.tokenizer.accumulation=3"}), Error);
  EXPECT_EQ(c.training.seed, 0);
}

TEST(Config, OverrideErrorsNameTheOverrideTheKeyAndTheRemedy) {
  auto error = [](const std::string& text) {
    Config c;
    return error_of([&] { apply_overrides(c, {text}); });
  };
  EXPECT_EQ(error("training.seed"), "override training.seed: expected section.key=value, found no '='");
  EXPECT_EQ(error("=3"), "override =3: expected section.key=value, found no key before '='");
  EXPECT_EQ(error("training.seed=-1"),
            "override training.seed=-1: training.seed: expected an integer >= 0, found -1");
  EXPECT_THAT(error("training.seed="), HasSubstr("training.seed: expected an integer >= 0, found ''"));
  EXPECT_THAT(error("training.sede=1"), HasSubstr("unknown key training.sede; did you mean training.seed?"));
  EXPECT_THAT(error("trainning.seed=1"), HasSubstr("did you mean training.seed?"));
  EXPECT_THAT(error("seed=1"), HasSubstr("did you mean training.seed?"));
  EXPECT_THAT(error("data.filter=true"),
              HasSubstr("data.filter is a section; set one of its keys: enabled, min_motion"));
  EXPECT_THAT(error("training.seed='3'"), HasSubstr("found '3' (remove the quotes)"));
  EXPECT_THAT(error("data.path='a'b'"), HasSubstr("the quoted value is not valid YAML"));
  EXPECT_THAT(error("data.path=\"a\\\""), HasSubstr("the quoted value is not valid YAML"));
  EXPECT_THAT(error("dynamics.min_mask_rate=1e-400"), HasSubstr("beyond what a double holds"));
  EXPECT_EQ(error("training.tokenizer.accumulation=3"),
            "after the overrides: training.tokenizer.batch_size = 4 is not divisible by "
            "training.tokenizer.accumulation = 3, the parts it is computed in");
}

TEST(NearestKey, EditDistanceCountsInsertionsDeletionsReplacementsAndSwaps) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("abc", ""), 3u);
  EXPECT_EQ(edit_distance("seed", "sede"), 1u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("ca", "abc"), 3u);
}

TEST(NearestKey, FindsMisspelledAndMisplacedKeys) {
  Config config;
  const std::vector<Entry> entries = list_entries(config);
  auto nearest = [&](const std::string& key) { return nearest_keys(key, entries); };
  EXPECT_THAT(nearest("learning_rate"),
              ElementsAre("training.tokenizer.learning_rate", "training.latent_action.learning_rate",
                          "training.dynamics.learning_rate", "training.cotrain.learning_rate",
                          "training.jepa.learning_rate"));
  EXPECT_THAT(nearest("training.tokenizer.Learning-Rate"), ElementsAre("training.tokenizer.learning_rate"));
  EXPECT_THAT(nearest("training.tokenizer.lerning_rate"), ElementsAre("training.tokenizer.learning_rate"));
  EXPECT_THAT(nearest("tokenizer.num_codes"), ElementsAre("tokenizer.quantizer.num_codes"));
  EXPECT_THAT(nearest("dynamics.depth"), ElementsAre("dynamics.transformer.depth"));
  EXPECT_THAT(nearest("tokeniser"), ElementsAre("tokenizer"));
  EXPECT_THAT(nearest("num_worker"), ElementsAre("data.num_workers"));
  EXPECT_THAT(nearest("training.frobnicate"), ElementsAre());
  EXPECT_THAT(unknown_key_hint("data.filter.frobnicate", entries),
              HasSubstr("the keys of data.filter are enabled, min_motion"));
  EXPECT_THAT(unknown_key_hint("frobnicate", entries), HasSubstr("the sections are data, tokenizer"));
}

}  // namespace
}  // namespace genie::config
