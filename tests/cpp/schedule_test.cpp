#include "genie/training/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "genie/core/error.h"

namespace genie::training {
namespace {

config::PhaseConfig phase(const std::string& schedule) {
  config::PhaseConfig phase;
  phase.steps = 110;
  phase.warmup_steps = 10;
  phase.learning_rate = 1.0;
  phase.final_learning_rate = 0.2;
  phase.decay_fraction = 0.2;
  phase.schedule = schedule;
  return phase;
}

void expect_rate(const config::PhaseConfig& phase, int64_t step, double expected) {
  const double found = learning_rate(phase, step);
  EXPECT_LE(std::abs(found - expected), 1e-12) << phase.schedule << " step " << step << ": " << found;
}

TEST(Schedule, EveryScheduleWarmsUpLinearlyFromTheFirstStep) {
  for (const char* name : {"constant", "linear", "cosine", "wsd"}) {
    expect_rate(phase(name), 1, 0.1);
    expect_rate(phase(name), 5, 0.5);
    expect_rate(phase(name), 10, 1.0);
  }
}

TEST(Schedule, ConstantStays) {
  expect_rate(phase("constant"), 11, 1.0);
  expect_rate(phase("constant"), 110, 1.0);
}

TEST(Schedule, LinearEndsAtTheFinalRate) {
  expect_rate(phase("linear"), 11, 0.992);  // 1 - 0.8 / 100
  expect_rate(phase("linear"), 60, 0.6);
  expect_rate(phase("linear"), 110, 0.2);
  expect_rate(phase("linear"), 1000, 0.2);
}

TEST(Schedule, CosineEndsAtTheFinalRate) {
  expect_rate(phase("cosine"), 35, 0.2 + 0.8 * 0.8535533905932737);  // (1 + cos 45 degrees) / 2
  expect_rate(phase("cosine"), 60, 0.6);
  expect_rate(phase("cosine"), 110, 0.2);
}

TEST(Schedule, WsdStaysAndFallsInTheLastFraction) {
  expect_rate(phase("wsd"), 88, 1.0);  // 110 - 22
  expect_rate(phase("wsd"), 99, 0.6);
  expect_rate(phase("wsd"), 110, 0.2);
  config::PhaseConfig never = phase("wsd");
  never.decay_fraction = 0;
  expect_rate(never, 110, 1.0);
  config::PhaseConfig all = phase("wsd");
  all.decay_fraction = 1;
  expect_rate(all, 60, 0.6);
}

TEST(Schedule, WithoutWarmUpTheFirstStepHasTheFullRate) {
  for (const char* name : {"constant", "linear", "cosine", "wsd"}) {
    config::PhaseConfig none = phase(name);
    none.warmup_steps = 0;
    expect_rate(none, 1, 1.0);
    none.steps = 1;
    expect_rate(none, 1, 1.0);
  }
}

TEST(Schedule, AWarmUpLongerThanThePhaseOnlyRises) {
  config::PhaseConfig longer = phase("cosine");
  longer.warmup_steps = 220;
  expect_rate(longer, 110, 0.5);
}

TEST(Schedule, StepsCountFromOneAndWordsAreKnown) {
  EXPECT_THROW(learning_rate(phase("cosine"), 0), Error);
  EXPECT_THROW(learning_rate(phase("step"), 20), Error);
}

}  // namespace
}  // namespace genie::training
