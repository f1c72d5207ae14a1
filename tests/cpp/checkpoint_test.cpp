#include "genie/training/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <limits>

#include "checkpoint_samples.h"
#include "genie/training/checkpoint_writer.h"
#include "temporary_directory.h"

namespace genie::training {
namespace {

namespace fs = std::filesystem;
using ::genie::testing::error_of;
using ::genie::testing::read_bytes;
using ::genie::testing::same;
using ::genie::testing::sample_checkpoint;
using ::genie::testing::TemporaryDirectory;
using ::genie::testing::write_bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

void write_steps(const std::string& directory, const std::vector<int64_t>& steps, int64_t keep_last = 9,
                 int64_t keep_every = 0) {
  CheckpointWriter writer(directory, keep_last, keep_every);
  for (const int64_t step : steps) writer.write_async(sample_checkpoint(step));
  EXPECT_EQ(writer.wait(), "");
}

TEST(Checkpoint, LoadsEqualToWhatWasWritten) {
  const TemporaryDirectory directory;
  write_steps(directory.path(), {500});
  const std::string path = directory / "step_00000500";
  EXPECT_EQ(latest_checkpoint(directory.path()), path);
  EXPECT_EQ(read_bytes(directory / "latest"), "step_00000500\n");
  EXPECT_THAT(names_in(path), ElementsAre("config.yaml", "manifest.json", "model.safetensors",
                                          "optimizer.safetensors", "state.json"));
  EXPECT_TRUE(same(load_checkpoint(path), sample_checkpoint(500)));
  EXPECT_TRUE(load_checkpoint(path, /*with_optimizer=*/false).optimizer.empty());
}

TEST(Checkpoint, AWriteKeepsTheValuesOfItsCallWhileTrainingChangesThem) {
  const TemporaryDirectory directory;
  CheckpointWriter writer(directory.path(), 2, 0);
  CheckpointData data = sample_checkpoint(1);
  writer.write_async(data);
  data.model.at("encoder.weight").zero_();
  writer.wait();
  EXPECT_TRUE(same(load_checkpoint(directory / "step_00000001"), sample_checkpoint(1)));
}

TEST(Checkpoint, KeepsTheNewestAndTheMultiplesAskedFor) {
  const TemporaryDirectory directory;
  write_steps(directory.path(), {100, 200, 300, 400, 500, 600}, 2, 300);
  EXPECT_THAT(checkpoint_steps(directory.path()), ElementsAre(300, 500, 600));
}

TEST(Checkpoint, NamesSortByStepAndForeignNamesAreLeftAlone) {
  const TemporaryDirectory directory;
  EXPECT_EQ(checkpoint_name(123456789), "step_123456789");
  for (const char* name : {"step_12", "step_0000000x", "step_00000007.bak", "notes"})
    fs::create_directories(directory / name);
  EXPECT_TRUE(checkpoint_steps(directory.path()).empty());
  EXPECT_EQ(latest_checkpoint(directory.path()), std::nullopt);
  EXPECT_EQ(latest_checkpoint(directory / "none"), std::nullopt);
}

TEST(Checkpoint, ADamagedNewestFallsBackToTheOneBeforeWithAWarning) {
  const TemporaryDirectory directory;
  write_steps(directory.path(), {1, 2, 3});
  const std::string model = directory / "step_00000003/model.safetensors";
  std::string bytes = read_bytes(model);
  bytes.back() ^= 1;
  write_bytes(model, bytes);
  fs::remove(directory / "step_00000002/manifest.json");
  std::string warning;
  EXPECT_EQ(latest_checkpoint(directory.path(), &warning), directory / "step_00000001");
  EXPECT_THAT(warning, HasSubstr("step_00000003/model.safetensors: damaged"));
  EXPECT_THAT(warning, HasSubstr("step_00000002/manifest.json"));
}

TEST(Checkpoint, WhereAllAreDamagedNothingStartsAnewSilently) {
  const TemporaryDirectory directory;
  write_steps(directory.path(), {1});
  fs::remove(directory / "step_00000001/state.json");
  EXPECT_THAT(error_of([&] { latest_checkpoint(directory.path()); }), HasSubstr("none of its 1 checkpoints"));
}

TEST(Checkpoint, PruningCountsOnlyStepsUpToTheOneWritten) {
  const TemporaryDirectory directory;
  write_steps(directory.path(), {1, 2, 9});
  fs::remove(directory / "step_00000009/manifest.json");
  write_steps(directory.path(), {3}, 1);
  EXPECT_EQ(latest_checkpoint(directory.path()), directory / "step_00000003");
}

TEST(Checkpoint, AnotherFormatVersionSaysSo) {
  const TemporaryDirectory directory;
  write_steps(directory.path(), {1});
  const std::string path = directory / "step_00000001/manifest.json";
  std::string text = read_bytes(path);
  const std::string field = "\"format_version\": 1";
  text.replace(text.find(field), field.size(), "\"format_version\": 2");
  write_bytes(path, text);
  EXPECT_THAT(error_of([&] { load_checkpoint(directory / "step_00000001"); }), HasSubstr("newer genie_cpp"));
}

TEST(Checkpoint, WritingAStepAgainReplacesItButNeverSomeonesFiles) {
  const TemporaryDirectory directory;
  const std::string path = directory / "model";
  save_checkpoint(path, sample_checkpoint(1));
  save_checkpoint(path + "/", sample_checkpoint(2));
  EXPECT_TRUE(same(load_checkpoint(path), sample_checkpoint(2)));
  write_bytes(path + "/notes.txt", "mine");
  EXPECT_THAT(error_of([&] { save_checkpoint(path, sample_checkpoint(3)); }), HasSubstr("notes.txt"));
  EXPECT_TRUE(same(load_checkpoint(path), sample_checkpoint(2)));
  EXPECT_THAT(names_in(directory.path()), ElementsAre("model"));
}

TEST(Checkpoint, LeftoversOfCrashedWritesGoWithTheNextStart) {
  const TemporaryDirectory directory;
  write_steps(directory.path(), {1, 2});
  fs::create_directories(directory / ".tmp-step_00000003-17");
  write_bytes(directory / ".tmp-step_00000003-17/model.safetensors", "half");
  write_bytes(directory / ".tmp-latest-17", "step_0");
  // The instant between the two renames on a file system that cannot exchange directories.
  fs::rename(directory / "step_00000002", directory / ".old-step_00000002");
  { const CheckpointWriter writer(directory.path(), 2, 0); }
  EXPECT_THAT(names_in(directory.path()), ElementsAre(".lock", "latest", "step_00000001", "step_00000002"));
  EXPECT_TRUE(same(load_checkpoint(directory / "step_00000002"), sample_checkpoint(2)));
}

TEST(Checkpoint, ASecondProcessMayNotWriteToTheSameDirectory) {
  const TemporaryDirectory directory;
  const CheckpointWriter writer(directory.path(), 1, 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string text = error_of([&] { const CheckpointWriter second(directory.path(), 1, 0); });
    ::_exit(text.find(std::to_string(::getppid())) != std::string::npos ? 7 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << status;
}

// The largest size of a file, for as long as it lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST(Checkpoint, AFailedWriteNamesAndKeepsTheLastGoodOneAndALaterWriteSucceeds) {
  const TemporaryDirectory directory;
  CheckpointWriter writer(directory.path(), 1, 0);
  writer.write_async(sample_checkpoint(1));
  writer.wait();
  rlim_t largest = 0;
  for (const auto& entry : fs::directory_iterator(directory / "step_00000001"))
    largest = std::max<rlim_t>(largest, entry.file_size());
  for (const rlim_t bytes : {rlim_t{0}, rlim_t{10}, rlim_t{100}, largest / 2, largest - 1}) {
    const FileSizeLimit limit(bytes);
    writer.write_async(sample_checkpoint(2));
    EXPECT_THAT(error_of([&] { writer.wait(); }),
                ::testing::AllOf(HasSubstr("step 2 was not written"), HasSubstr("too large"),
                                 HasSubstr("last good checkpoint is " + (directory / "step_00000001"))));
    EXPECT_THAT(names_in(directory.path()), ElementsAre(".lock", "latest", "step_00000001"));
    EXPECT_EQ(latest_checkpoint(directory.path()), directory / "step_00000001");
  }
  {
    const FileSizeLimit limit(100);
    writer.write_async(sample_checkpoint(2));
    EXPECT_THAT(error_of([&] { writer.write_async(sample_checkpoint(3)); }), HasSubstr("step 2"));
  }
  writer.write_async(sample_checkpoint(4));
  EXPECT_EQ(writer.wait(), "");
  EXPECT_TRUE(same(load_checkpoint(directory / "step_00000004"), sample_checkpoint(4)));
}

TEST(Checkpoint, AFullDiskNamesAndKeepsTheLastGoodOne) {
  const TemporaryDirectory directory;
  if (::mount("none", directory.path().c_str(), "tmpfs", 0, "size=256k") != 0)
    GTEST_SKIP() << "mounting a small file system takes root";
  {
    CheckpointWriter writer(directory.path(), 1, 0);
    writer.write_async(sample_checkpoint(1, 8000));
    writer.wait();
    writer.write_async(sample_checkpoint(2, 40000));
    EXPECT_THAT(error_of([&] { writer.wait(); }),
                ::testing::AllOf(HasSubstr("free some space"), HasSubstr("last good checkpoint is")));
    EXPECT_TRUE(same(load_checkpoint(directory / "step_00000001"), sample_checkpoint(1, 8000)));
    writer.write_async(sample_checkpoint(3, 8000));
    EXPECT_EQ(writer.wait(), "");
  }
  EXPECT_EQ(latest_checkpoint(directory.path()), directory / "step_00000003");
  ::umount(directory.path().c_str());
}

TEST(TrainState, KeepsEveryBitOfItsNumbers) {
  TrainState state = sample_checkpoint(7).state;
  state.numbers["tiny"] = std::numeric_limits<double>::denorm_min();
  state.numbers["third"] = 1.0 / 3;
  state.numbers["minus_inf"] = -std::numeric_limits<double>::infinity();
  state.step = INT64_MAX;
  EXPECT_EQ(parse_train_state(to_json(state), "state.json"), state);
  state.numbers["nan"] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(parse_train_state(to_json(state), "state.json").numbers.at("nan")));
}

TEST(TrainState, MissingUnknownAndMistypedFieldsAreNamed) {
  const std::string good = to_json(sample_checkpoint(7).state);
  const auto message = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return error_of([&] { parse_train_state(text, "state.json"); });
  };
  EXPECT_THAT(message("\"phase\"", "\"phrase\""), HasSubstr("phase is missing"));
  EXPECT_THAT(message("\"step\": 7", "\"step\": -7"), HasSubstr("step: expected a whole number"));
  EXPECT_THAT(message("\"step\": 7", "\"step\": 7.5"), HasSubstr("step: expected a whole number"));
  EXPECT_THAT(message("\"step\": 7", "\"step\": 7, \"more\": 1"), HasSubstr("does not know"));
  EXPECT_THAT(message("\"inf\"", "\"information\""), HasSubstr("worst_loss"));
  EXPECT_THAT(error_of([] { parse_train_state(std::string(1 << 20, '['), "s"); }), HasSubstr("JSON object"));
}

}  // namespace
}  // namespace genie::training
