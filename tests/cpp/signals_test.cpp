#include "genie/core/signals.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "genie/core/error.h"

namespace genie {
namespace {

/// A background job of a shell starts with SIGINT ignored, which StopSignals respects.
class StopSignalsTest : public ::testing::Test {
 protected:
  StopSignalsTest() : interrupt_(std::signal(SIGINT, SIG_DFL)), terminate_(std::signal(SIGTERM, SIG_DFL)) {}
  ~StopSignalsTest() override {
    std::signal(SIGINT, interrupt_);
    std::signal(SIGTERM, terminate_);
  }

 private:
  void (*interrupt_)(int);
  void (*terminate_)(int);
};

TEST_F(StopSignalsTest, TheFirstSignalOnlySetsTheFlag) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const StopSignals handlers;
    EXPECT_FALSE(stop_requested());
    ::raise(signal);
    EXPECT_TRUE(stop_requested());
    EXPECT_EQ(stop_signal(), signal);
  }
  clear_stop();
  EXPECT_FALSE(stop_requested());
}

TEST_F(StopSignalsTest, TheSecondSignalEndsTheProcessAtOnce) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const pid_t child = ::fork();
    if (child == 0) {
      const StopSignals handlers;
      ::raise(SIGINT);
      if (!stop_requested()) ::_exit(1);
      ::raise(signal);
      ::_exit(2);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 128 + signal);
  }
}

void other_handler(int) {}

TEST_F(StopSignalsTest, TheHandlersBeforeComeBackAndIgnoredSignalsStayIgnored) {
  const auto interrupt = std::signal(SIGINT, other_handler);
  const auto terminate = std::signal(SIGTERM, SIG_IGN);
  {
    const StopSignals handlers;
    ::raise(SIGTERM);
    EXPECT_FALSE(stop_requested());
    EXPECT_THROW(StopSignals second, Error);
  }
  EXPECT_EQ(std::signal(SIGINT, interrupt), other_handler);
  EXPECT_EQ(std::signal(SIGTERM, terminate), SIG_IGN);
}

TEST_F(StopSignalsTest, ARequestWithoutASignalIsHeardAndForgottenByTheNext) {
  request_stop();
  EXPECT_TRUE(stop_requested());
  EXPECT_EQ(stop_signal(), 0);
  const StopSignals handlers;
  EXPECT_FALSE(stop_requested());
}

}  // namespace
}  // namespace genie
