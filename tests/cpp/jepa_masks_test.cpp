#include "genie/training/jepa_masks.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "genie/training/schedule.h"

namespace genie::training {
namespace {

const nn::GridSize kGrid{.frames = 3, .height = 6, .width = 5};

std::vector<JepaMask> draw(const std::vector<int64_t>& samples, uint64_t seed = 7) {
  return draw_jepa_masks({}, kGrid, samples, seed, at::kCPU);
}

TEST(JepaMasks, SeenAndHiddenTokensAreAllOfAClipsTokensOnce) {
  const auto masks = draw({0, 1, 2, 40});
  ASSERT_EQ(masks.size(), 2u);  // short and long blocks
  for (const JepaMask& mask : masks) {
    EXPECT_EQ(mask.hidden.size(1), 72);  // 0.8 of 90
    const at::Tensor all = std::get<0>(at::cat({mask.seen, mask.hidden}, 1).sort(1));
    EXPECT_TRUE(all.equal(at::arange(kGrid.count()).expand_as(all)));
  }
}

TEST(JepaMasks, AMaskDependsOnSeedAndSampleAlone) {
  const auto together = draw({5, 6}), alone = draw({6}), other = draw({6}, 8);
  EXPECT_TRUE(together[0].hidden[1].equal(alone[0].hidden[0]));
  EXPECT_FALSE(together[0].hidden[0].equal(together[0].hidden[1]));
  EXPECT_FALSE(other[0].hidden.equal(alone[0].hidden));
}

TEST(JepaMasks, BlocksThroughTheWholeClipHideTheSamePlacesInEachFrameButForTheLast) {
  config::JepaMaskConfig config;
  config.long_scale = 0;
  const auto masks = draw_jepa_masks(config, kGrid, {0, 1, 2, 3}, 1, at::kCPU);
  ASSERT_EQ(masks.size(), 1u);
  for (int64_t sample = 0; sample < 4; ++sample) {
    at::Tensor hidden = at::zeros({kGrid.count()}, at::kLong);
    hidden.index_fill_(0, masks[0].hidden[sample], 1);
    const at::Tensor frames = hidden.view({kGrid.frames, -1}).sum(0);  // a place is hidden in so many frames
    EXPECT_LE(((frames > 0) & (frames < kGrid.frames)).sum().item<int64_t>(), 1);
  }
}

TEST(Schedule, WeightDecayGoesAlongAHalfCosineOrStays) {
  config::PhaseConfig phase;
  phase.steps = 101;
  phase.weight_decay = 0.04;
  EXPECT_EQ(weight_decay(phase, 50), 0.04);
  phase.final_weight_decay = 0.4;
  EXPECT_NEAR(weight_decay(phase, 1), 0.04, 1e-12);
  EXPECT_NEAR(weight_decay(phase, 51), 0.22, 1e-12);
  EXPECT_NEAR(weight_decay(phase, 101), 0.4, 1e-12);
}

}  // namespace
}  // namespace genie::training
