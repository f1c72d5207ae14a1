#include "genie/training/metrics_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <limits>

#include "checkpoint_samples.h"
#include "temporary_directory.h"

namespace genie::training {
namespace {

using ::genie::testing::error_of;
using ::genie::testing::read_bytes;
using ::genie::testing::TemporaryDirectory;
using ::genie::testing::write_bytes;
using ::testing::HasSubstr;

TEST(MetricsLog, WritesOneJsonObjectALineAndNullForWhatIsNotFinite) {
  const TemporaryDirectory directory;
  MetricsLog log(directory / "metrics.jsonl", -1);
  log.write(1, {{"loss", 0.1}, {"psnr", std::numeric_limits<double>::quiet_NaN()}, {"a \"b\"", 1e300}});
  log.write(2, {});
  log.sync();
  EXPECT_EQ(read_bytes(directory / "metrics.jsonl"),
            "{\"step\":1,\"loss\":0.1,\"psnr\":null,\"a \\\"b\\\"\":1e+300}\n{\"step\":2}\n");
}

TEST(MetricsLog, ResumingDropsLaterStepsAndATornLineSoThatNoStepStandsTwice) {
  const TemporaryDirectory directory;
  const std::string path = directory / "metrics.jsonl";
  const std::string kept = "{\"step\":10,\"loss\":3.0}\n{\"step\":20,\"val\":1}\n";
  write_bytes(path, kept + "{\"step\":30,\"loss\":2}\nspoilt\n{\"step\":20,\"val_2\":4}\n{\"step\":4");
  { MetricsLog(path, 20).write(21, {{"loss", 2}}); }
  EXPECT_EQ(read_bytes(path), kept + "{\"step\":20,\"val_2\":4}\n{\"step\":21,\"loss\":2}\n");
  { const MetricsLog again(path, 21); }
  EXPECT_EQ(read_bytes(path), kept + "{\"step\":20,\"val_2\":4}\n{\"step\":21,\"loss\":2}\n");
  { const MetricsLog anew(path, -1); }
  EXPECT_EQ(read_bytes(path), "");
}

TEST(MetricsLog, AFileThatIsNoLogIsNotTouched) {
  const TemporaryDirectory directory;
  const std::string path = directory / "notes.txt";
  write_bytes(path, "my notes\n[1]\n");
  EXPECT_THAT(error_of([&] { const MetricsLog log(path, -1); }), HasSubstr("no metrics log"));
  EXPECT_EQ(read_bytes(path), "my notes\n[1]\n");
  EXPECT_THAT(error_of([&] { const MetricsLog log(directory.path(), -1); }), HasSubstr("no regular file"));
  EXPECT_THAT(error_of([] { const MetricsLog log("/dev/full", -1); }), HasSubstr("no regular file"));
}

TEST(MetricsLog, ALineIsWrittenWholeOrNotAtAll) {
  const TemporaryDirectory directory;
  const std::string path = directory / "metrics.jsonl";
  MetricsLog log(path, -1);
  log.write(1, {{"loss", 1}});
  const std::string before = read_bytes(path);
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit = {before.size() + 5, old.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const std::string error = error_of([&] { log.write(2, {{"loss", 1}}); });
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(error, HasSubstr("metrics.jsonl: cannot be written"));
  EXPECT_EQ(read_bytes(path), before);
  log.write(3, {});
  EXPECT_EQ(read_bytes(path), before + "{\"step\":3}\n");
}

TEST(MetricsLog, NamesThatWouldSpoilALineAreRefused) {
  const TemporaryDirectory directory;
  MetricsLog log(directory / "metrics.jsonl", -1);
  EXPECT_THAT(error_of([&] { log.write(1, {{"step", 1}}); }), HasSubstr("step"));
  EXPECT_THAT(error_of([&] { log.write(1, {{"\xff", 1}}); }), HasSubstr("UTF-8"));
}

}  // namespace
}  // namespace genie::training
