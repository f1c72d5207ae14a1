#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace genie {

/// What a progress line shows. Rates and shares below 0 are unknown and left out.
struct ProgressState {
  std::string label;
  int64_t step = 0;
  int64_t total = 0;
  std::vector<std::pair<std::string, double>> values;
  double steps_per_second = -1;
  double data_share = -1;  ///< part of the time spent waiting for data, 0 to 1
};

/// "tokenizer  120/2000  loss 3.412  psnr 31.2  4.1 steps/s  data 2%  ETA 7:40"
std::string format_progress(const ProgressState& state);

/// One line on stderr about a long loop: rewritten in place on a terminal, otherwise a plain line now and
/// then. It never slows the loop: a line is made only when due, and skipped when the terminal or pipe would
/// make us wait. Not for use from several threads.
class ProgressLine {
 public:
  using Clock = std::chrono::steady_clock;
  struct Options {
    int file = 2;                    ///< file descriptor
    double plain_interval = 10;      ///< seconds between lines where there is no terminal
    double terminal_interval = 0.1;  ///< seconds between rewrites
    bool quiet = false;              ///< shows nothing (ranks other than the first)
    std::function<Clock::time_point()> now = Clock::now;
  };

  /// `first_step` is the steps already done when this loop starts (a resumed run).
  ProgressLine(std::string label, int64_t total, int64_t first_step, Options options);
  ProgressLine(std::string label, int64_t total, int64_t first_step = 0);

  /// Ends the line.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  /// Whether update() would show something now: ask before computing values that cost (reading a loss back
  /// from the GPU).
  bool due() const;

  /// Shows the line if it is due. `step` is the steps done.
  void update(int64_t step, const std::vector<std::pair<std::string, double>>& values,
              double data_share = -1);

  /// Writes a message on a line of its own, above the progress line. Waits if it must.
  void print(const std::string& message);

  /// Shows the last state, due or not, and ends the line. update() may begin a new one.
  void finish();

 private:
  void show(bool wait);

  Options options_;
  bool terminal_;
  ProgressState state_;
  Clock::time_point shown_at_;
  int64_t shown_step_;
  bool open_ = false;     // a line without its newline stands on the terminal
  bool pending_ = false;  // state_ is newer than what was shown
};

}  // namespace genie
