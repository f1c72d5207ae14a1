#include "genie/inference/maskgit.h"

#include <gtest/gtest.h>

#include <cmath>

namespace {

using genie::inference::num_masked;

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

}  // namespace
