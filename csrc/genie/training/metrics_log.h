#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace genie::training {

/// A run's numbers, a JSON object a line: {"step":120,"loss":3.41,...}. Lines are only appended.
class MetricsLog {
 public:
  /// Opens the file, or makes it. Lines of steps above `resume_step` are dropped, so that a resumed run's
  /// curve has no doubles, and so is a line a crash tore; -1 drops all. Write a step's line before that
  /// step's checkpoint, or a crash between the two loses it. Throws Error for a file that is no such log.
  MetricsLog(std::string path, int64_t resume_step);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  /// Appends a line, whole or (with an Error: a full disk) not at all. Numbers that are not finite become
  /// null. A step may have several lines. "step" is no name for a number.
  void write(int64_t step, const std::vector<std::pair<std::string, double>>& numbers);

  /// Brings the lines to disk.
  void sync();

 private:
  std::string path_;
  int file_ = -1;
};

}  // namespace genie::training
