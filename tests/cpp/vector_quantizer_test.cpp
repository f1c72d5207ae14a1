#include "genie/nn/vector_quantizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "genie/nn/kmeans.h"

namespace {

using genie::config::QuantizerConfig;
using genie::nn::VectorQuantizer;

constexpr uint64_t kSeed = 7;

QuantizerConfig small(const std::string& update = "ema") {
  QuantizerConfig config;
  config.num_codes = 8;
  config.code_dim = 4;
  config.update = update;
  config.kmeans_init = false;
  config.dead_code_steps = 0;
  return config;
}

class VectorQuantizerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    at::manual_seed(kSeed);
    RecordProperty("seed", static_cast<int>(kSeed));
  }
};

TEST_F(VectorQuantizerTest, GivesTheNearestEntryByBruteForce) {
  VectorQuantizer quantizer(small());
  const at::Tensor x = at::randn({3, 50, 4});
  const auto out = quantizer->forward(x);
  const at::Tensor distance = (x.unsqueeze(2) - quantizer->codebook()).square().sum(-1);
  EXPECT_TRUE(at::equal(out.indices, distance.argmin(-1)));
  EXPECT_LE((out.values - quantizer->lookup(out.indices)).abs().max().item<double>(), 1e-6);
}

TEST_F(VectorQuantizerTest, PassesGradientsStraightThrough) {
  VectorQuantizer quantizer(small());
  const at::Tensor x = at::randn({20, 4}).requires_grad_(true);
  const at::Tensor weight = at::randn({20, 4});
  (quantizer->forward(x).values * weight).sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), weight));
}

TEST_F(VectorQuantizerTest, CommitmentPullsEncodingsToTheirEntry) {
  VectorQuantizer quantizer(small());
  const at::Tensor x = at::randn({20, 4}).requires_grad_(true);
  const auto out = quantizer->forward(x);
  out.loss.backward();
  const at::Tensor expected = 2 * (x - quantizer->lookup(out.indices)) / 20;
  EXPECT_LE((x.grad() - expected).abs().max().item<double>(), 1e-6);
  EXPECT_GT(x.grad().abs().max().item<double>(), 0);
}

TEST_F(VectorQuantizerTest, CodebookLossMovesOnlyUsedEntries) {
  VectorQuantizer quantizer(small("loss"));
  const at::Tensor x = quantizer->codebook().detach().narrow(0, 2, 1) + 0.01;
  quantizer->forward(x).loss.backward();
  const at::Tensor gradient = quantizer->codebook().grad().abs().sum(1);
  EXPECT_GT(gradient[2].item<double>(), 0);
  EXPECT_LE((gradient.sum() - gradient[2]).item<double>(), 0);
}

TEST_F(VectorQuantizerTest, MovingAveragesApproachTheMeanOfTheirEncodings) {
  VectorQuantizer quantizer(small());
  const at::Tensor x = quantizer->codebook().narrow(0, 3, 1) + 0.01 * at::randn({64, 4});
  for (int step = 0; step < 600; ++step) {
    quantizer->forward(x);
    quantizer->update_codebook(kSeed);
  }
  EXPECT_LE((quantizer->codebook()[3] - x.mean(0)).abs().max().item<double>(), 1e-3);
}

TEST_F(VectorQuantizerTest, EvaluationAndDiscardedStepsLeaveTheCodebookAlone) {
  VectorQuantizer quantizer(small());
  const at::Tensor before = quantizer->codebook().clone();
  quantizer->forward(at::randn({64, 4}));
  quantizer->discard_statistics();
  quantizer->update_codebook(kSeed);
  quantizer->eval();
  quantizer->forward(at::randn({64, 4}));
  quantizer->update_codebook(kSeed);
  EXPECT_TRUE(at::equal(quantizer->codebook(), before));
}

TEST_F(VectorQuantizerTest, DeadEntriesRestartAtLiveEncodings) {
  QuantizerConfig config = small();
  config.dead_code_steps = 3;
  VectorQuantizer quantizer(config);
  const at::Tensor x = at::randn({64, 4}) + 100;  // far from every entry: one of them gets all
  for (int step = 0; step < 20; ++step) {
    quantizer->forward(x);
    quantizer->update_codebook(kSeed + step);
  }
  quantizer->take_usage();
  quantizer->forward(x);
  quantizer->update_codebook(kSeed);
  EXPECT_GE(quantizer->take_usage().share, 0.9);
  EXPECT_GE(quantizer->codebook().min().item<double>(), 90);
}

TEST_F(VectorQuantizerTest, KmeansStartUsesEveryEntry) {
  QuantizerConfig config = small();
  config.kmeans_init = true;
  VectorQuantizer quantizer(config);
  quantizer->forward(at::randn({500, 4}));
  quantizer->update_codebook(kSeed);
  EXPECT_EQ(quantizer->take_usage().share, 1.0);
}

TEST_F(VectorQuantizerTest, UsageAndPerplexityOfKnownCounts) {
  VectorQuantizer quantizer(small());
  const at::Tensor entries = quantizer->codebook().clone();
  quantizer->forward(at::cat({entries.narrow(0, 0, 4), entries.narrow(0, 0, 4)}));
  quantizer->update_codebook(kSeed);
  const auto usage = quantizer->take_usage();
  EXPECT_DOUBLE_EQ(usage.share, 0.5);
  EXPECT_NEAR(usage.perplexity, 4.0, 1e-9);
}

TEST_F(VectorQuantizerTest, RefusesIndicesOutsideTheCodebookAndOtherWidths) {
  VectorQuantizer quantizer(small());
  EXPECT_THROW(quantizer->lookup(at::full({2}, 8, at::kLong)), c10::IndexError);
  EXPECT_THROW(quantizer->lookup(at::full({2}, -1, at::kLong)), c10::IndexError);
  EXPECT_THROW(quantizer->forward(at::randn({2, 5})), c10::ValueError);
}

TEST_F(VectorQuantizerTest, KmeansServesRepetitiveDataFromDistinctPoints) {
  // 1,000 copies of one point and 7 others: a start among all points would miss most of the 7.
  const at::Tensor rare = at::randn({7, 4}) * 10;
  const at::Tensor points = at::cat({at::zeros({1000, 4}), rare});
  const at::Tensor centers = genie::nn::kmeans(points, 8, 20, kSeed);
  const at::Tensor error =
      (points - centers.index_select(0, genie::nn::nearest(points, centers))).abs().max();
  EXPECT_LE(error.item<double>(), 1e-5);
}

TEST_F(VectorQuantizerTest, KmeansOfFewerPointsThanCentersStaysFinite) {
  const at::Tensor centers = genie::nn::kmeans(at::ones({2, 4}), 8, 5, kSeed);
  EXPECT_TRUE(at::isfinite(centers).all().item<bool>());
}

}  // namespace
