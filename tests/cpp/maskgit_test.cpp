#include "genie/inference/maskgit.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace {

using genie::config::InferenceConfig;
using genie::inference::num_masked;
using genie::inference::refine;

constexpr uint64_t kSeed = 11;

TEST(MaskGitSchedule, FallsFromAllToNoneWithoutRising) {
  for (const std::string schedule : {"cosine", "linear"}) {
    for (const int64_t steps : {1, 2, 7, 25, 300}) {
      int64_t former = 256;
      EXPECT_EQ(num_masked(schedule, 0, steps, 256), 256);
      for (int64_t step = 1; step <= steps; ++step) {
        const int64_t masked = num_masked(schedule, step, steps, 256);
        EXPECT_LE(masked, former) << schedule << " step " << step << " of " << steps;
        former = masked;
      }
      EXPECT_EQ(former, 0);
    }
  }
}

TEST(MaskGitSchedule, CosineValues) {
  EXPECT_EQ(num_masked("cosine", 1, 2, 256), static_cast<int64_t>(std::floor(256 * std::sqrt(0.5))));
  EXPECT_EQ(num_masked("cosine", 1, 3, 1000), 866);
  EXPECT_EQ(num_masked("linear", 1, 4, 100), 75);
}

TEST(MaskGitSchedule, RefusesUnknownNamesAndSteps) {
  EXPECT_THROW(num_masked("square", 1, 2, 10), c10::ValueError);
  EXPECT_THROW(num_masked("cosine", 3, 2, 10), c10::ValueError);
}

struct RefineTest : ::testing::Test {
  void SetUp() override {
    at::manual_seed(kSeed);
    RecordProperty("seed", static_cast<int>(kSeed));
    logits = at::randn({3, 40, 16}) * 3;
    tokens = at::randint(16, {3, 40}, at::kLong);
    mask = at::rand({3, 40}) < 0.7;
  }
  at::Tensor logits, tokens, mask;
  InferenceConfig config;
};

TEST_F(RefineTest, KeepsTokensThatWereKept) {
  const auto out = refine(logits, tokens, mask, 5, config, kSeed);
  EXPECT_TRUE(at::equal(out.tokens.masked_select(~mask), tokens.masked_select(~mask)));
  EXPECT_FALSE((out.mask & ~mask).any().item<bool>());
}

TEST_F(RefineTest, LeavesExactlyAsManyMaskedAsAsked) {
  for (const std::string unmasking : {"confidence", "random"}) {
    config.unmasking = unmasking;
    for (const int64_t keep : {0, 1, 12}) {
      EXPECT_TRUE((refine(logits, tokens, mask, keep, config, kSeed).mask.sum(-1) == keep).all().item<bool>())
          << unmasking << keep;
    }
  }
}

TEST_F(RefineTest, TemperatureZeroTakesTheLikeliestAndKeepsTheMostConfident) {
  config.temperature = 0;
  const auto out = refine(logits, tokens, at::ones_like(mask), 10, config, kSeed);
  EXPECT_TRUE(at::equal(out.tokens, logits.argmax(-1)));
  const at::Tensor confidence = std::get<0>(logits.log_softmax(-1).max(-1));
  const double least_kept = confidence[0].masked_select(~out.mask[0]).min().item<double>();
  EXPECT_LE(confidence[0].masked_select(out.mask[0]).max().item<double>(), least_kept);
}

TEST_F(RefineTest, TopKOneAndSmallTopPTakeTheLikeliest) {
  config.top_k = 1;
  EXPECT_TRUE(
      at::equal(refine(logits, tokens, at::ones_like(mask), 0, config, kSeed).tokens, logits.argmax(-1)));
  config.top_k = 0;
  config.top_p = 1e-6;
  EXPECT_TRUE(
      at::equal(refine(logits, tokens, at::ones_like(mask), 0, config, kSeed).tokens, logits.argmax(-1)));
}

TEST_F(RefineTest, SamplesFollowTheTemperedSoftmax) {
  config.temperature = 2;
  const at::Tensor row = at::tensor({0.0f, 1.0f, 2.0f, 3.0f});
  const at::Tensor many = row.expand({1, 40000, 4});
  const at::Tensor none = at::zeros({1, 40000}, at::kLong);
  const auto out = refine(many, none, at::ones_like(none, at::kBool), 0, config, kSeed);
  const at::Tensor share = at::bincount(out.tokens.flatten(), {}, 4).to(at::kDouble) / 40000.0;
  EXPECT_LE((share - (row / 2).softmax(0)).abs().max().item<double>(), 0.01);
}

TEST_F(RefineTest, SameSeedSameTokens) {
  EXPECT_TRUE(at::equal(refine(logits, tokens, mask, 5, config, 1).tokens,
                        refine(logits, tokens, mask, 5, config, 1).tokens));
  EXPECT_FALSE(at::equal(refine(logits, tokens, mask, 5, config, 1).tokens,
                         refine(logits, tokens, mask, 5, config, 2).tokens));
}

}  // namespace
