#include "genie/core/progress.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <cstdlib>

namespace genie {
namespace {

using ::testing::HasSubstr;

TEST(Progress, ALineShowsStepValuesRateDataShareAndTimeLeft) {
  ProgressState state = {"tokenizer", 120, 2000, {{"loss", 3.4119}, {"psnr", 31.2}}, 4.0869, 0.02};
  EXPECT_EQ(format_progress(state),
            "tokenizer  120/2000  loss 3.412  psnr 31.2  4.1 steps/s  data 2%  ETA 7:40");
  state.steps_per_second = 0.05;
  EXPECT_THAT(format_progress(state), HasSubstr("20.0 s/step  data 2%  ETA 10:26:40"));
  state.step = 2000;
  EXPECT_THAT(format_progress(state), ::testing::Not(HasSubstr("ETA")));
  EXPECT_EQ(format_progress({"x", 0, 5, {}, -1, -1}), "x  0/5");
}

// Both ends of a pipe or terminal, and a clock that is set by hand.
struct Screen {
  int ours = -1, theirs = -1;
  ProgressLine::Clock::time_point time{};

  ProgressLine::Options options() {
    ProgressLine::Options options;
    options.file = theirs;
    options.now = [this] { return time; };
    return options;
  }
  void advance(double seconds) {
    time += std::chrono::duration_cast<ProgressLine::Clock::duration>(std::chrono::duration<double>(seconds));
  }
  std::string text() const {
    ::fcntl(ours, F_SETFL, O_NONBLOCK);
    std::string all;
    char buffer[4096];
    for (ssize_t got; (got = ::read(ours, buffer, sizeof buffer)) > 0;) all.append(buffer, got);
    return all;
  }
  ~Screen() {
    ::close(ours);
    ::close(theirs);
  }
};

struct Pipe : Screen {
  Pipe() {
    int ends[2];
    if (::pipe(ends) == 0) ours = ends[0], theirs = ends[1];
  }
};

TEST(Progress, WithoutATerminalPlainLinesComeAtIntervals) {
  Pipe pipe;
  ProgressLine line("t", 100, 0, pipe.options());
  for (int step = 1; step <= 45; ++step) {
    pipe.advance(0.5);
    EXPECT_EQ(line.due(), step % 20 == 0);
    line.update(step, {{"loss", 2}});
  }
  line.finish();
  EXPECT_EQ(pipe.text(),
            "t  20/100  loss 2  2.0 steps/s  ETA 0:40\nt  40/100  loss 2  2.0 steps/s  ETA 0:30\n"
            "t  45/100  loss 2  2.0 steps/s  ETA 0:28\n");
}

TEST(Progress, AResumedRunCountsItsOwnStepsForTheRate) {
  Pipe pipe;
  ProgressLine line("t", 2000, 1000, pipe.options());
  pipe.advance(10);
  line.update(1010, {});
  EXPECT_EQ(pipe.text(), "t  1010/2000  1.0 steps/s  ETA 16:30\n");
}

TEST(Progress, AFullPipeSkipsLinesInsteadOfWaiting) {
  Pipe pipe;
  ::fcntl(pipe.theirs, F_SETFL, O_NONBLOCK);
  const std::string filler(4096, '.');
  while (::write(pipe.theirs, filler.data(), filler.size()) > 0) {
  }
  ::fcntl(pipe.theirs, F_SETFL, 0);
  ProgressLine line("t", 100, 0, pipe.options());
  pipe.advance(11);
  line.update(1, {});  // would never return if it waited
  EXPECT_THAT(pipe.text(), ::testing::Not(HasSubstr("1/100")));
  pipe.advance(11);
  line.update(2, {});
  EXPECT_THAT(pipe.text(), HasSubstr("2/100"));
}

TEST(Progress, OnATerminalTheLineIsRewrittenAndMessagesStandAboveIt) {
  ::setenv("TERM", "xterm", 1);
  Screen screen;
  struct winsize size = {24, 20, 0, 0};
  ASSERT_EQ(::openpty(&screen.ours, &screen.theirs, nullptr, nullptr, &size), 0);
  {
    ProgressLine line("tokenizer", 100, 0, screen.options());
    screen.advance(1);
    line.update(10, {{"loss", 3}});
    screen.advance(0.01);
    line.update(11, {{"loss", 2}});
    EXPECT_EQ(screen.text(), "\rtokenizer  10/100  \x1b[K");  // cut at 19 columns, so that it never wraps
    line.print("saved");
    EXPECT_EQ(screen.text(), "\r\x1b[Ksaved\r\n\rtokenizer  11/100  \x1b[K");
  }
  EXPECT_EQ(screen.text(), "\r\n");
}

TEST(Progress, AQuietLineShowsNothing) {
  Pipe pipe;
  ProgressLine::Options options = pipe.options();
  options.quiet = true;
  ProgressLine line("t", 10, 0, options);
  pipe.advance(100);
  EXPECT_FALSE(line.due());
  line.update(1, {});
  line.print("hello");
  line.finish();
  EXPECT_EQ(pipe.text(), "");
}

}  // namespace
}  // namespace genie
