#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <exception>
#include <iostream>
#include <random>

#include "checkpoint_samples.h"
#include "genie/training/checkpoint_writer.h"
#include "temporary_directory.h"

namespace genie::training {
namespace {

using ::genie::testing::read_bytes;
using ::genie::testing::same;
using ::genie::testing::sample_checkpoint;
using ::genie::testing::TemporaryDirectory;

constexpr int64_t kElements = 16000;  // below what ATen splits over threads, which a fork does not carry over

// Resumes from the newest checkpoint and writes one after another, telling each finished step, until killed.
[[noreturn]] void write_until_killed(const std::string& directory, int told) {
  try {
    CheckpointWriter writer(directory, 2, 0);
    const auto latest = latest_checkpoint(directory);
    int64_t step = latest ? load_checkpoint(*latest).state.step : 0;
    for (;;) {
      ++step;
      writer.write_async(sample_checkpoint(step, kElements));
      writer.wait();
      if (::write(told, &step, sizeof step) != sizeof step) ::_exit(4);
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    ::_exit(3);
  }
}

TEST(CheckpointKill, AtAnyMomentTheLastFinishedCheckpointIsFoundWhole) {
  const uint64_t seed = 20240215;
  std::cout << "seed " << seed << std::endl;
  std::mt19937_64 random(seed);
  const TemporaryDirectory directory;
  int64_t finished = 0;
  int found_mid_write = 0;
  for (int round = 0; round < 30; ++round) {
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) write_until_killed(directory.path(), ends[1]);
    ::close(ends[1]);
    // Half of the rounds are killed around the start, half once a checkpoint was finished.
    struct pollfd told = {ends[0], POLLIN, 0};
    const int timeout = round % 2 ? 60000 : 0;
    ASSERT_GE(::poll(&told, 1, timeout), round % 2);
    ::usleep(std::uniform_int_distribution<useconds_t>(0, 30000)(random));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "exit " << WEXITSTATUS(status);
    for (int64_t step = 0; ::read(ends[0], &step, sizeof step) == sizeof step;) finished = step;
    ::close(ends[0]);

    for (const auto& entry : std::filesystem::directory_iterator(directory.path()))
      found_mid_write += entry.path().filename().string().rfind(".tmp-", 0) == 0;
    std::string warning;
    const auto latest = latest_checkpoint(directory.path(), &warning);
    EXPECT_EQ(warning, "");
    if (finished == 0 && !latest) continue;
    ASSERT_TRUE(latest);
    const CheckpointData data = load_checkpoint(*latest);
    EXPECT_GE(data.state.step, finished);
    EXPECT_LE(data.state.step, finished + 1);
    EXPECT_TRUE(same(data, sample_checkpoint(data.state.step, kElements)));
    finished = data.state.step;
    std::string name = read_bytes(directory / "latest");
    if (!name.empty()) {
      name.pop_back();
      EXPECT_NO_THROW(verify_checkpoint(directory / name));
    }
  }
  EXPECT_GT(finished, 10);
  std::cout << found_mid_write << " unfinished files met" << std::endl;
}

}  // namespace
}  // namespace genie::training
