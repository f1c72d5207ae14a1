#include "genie/training/metrics_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>

#include "genie/core/error.h"
#include "genie/core/file.h"
#include "genie/core/json.h"

namespace genie::training {
namespace {

namespace fs = std::filesystem;

std::optional<int64_t> step_of(const std::string& line) {
  if (line.size() > (1 << 20)) return std::nullopt;
  const auto json = parse_json(line);
  if (!json || !json->is_object() || !json->contains("step") || !(*json)["step"].is_number_integer())
    return std::nullopt;
  return (*json)["step"].get<int64_t>();
}

// Copies the lines to keep into a file beside and renames it over the log, unless all are kept.
void drop_later_lines(const std::string& path, int64_t resume_step) {
  const fs::path target(path);
  std::error_code ignored;
  if (!fs::exists(target, ignored)) return;
  check(fs::is_regular_file(target, ignored), path, ": exists and is no regular file");
  std::ifstream in(path, std::ios::binary);
  check(in.is_open(), path, ": cannot be opened");
  const std::string beside = (target.parent_path() / concat(".tmp-", target.filename().string())).string();
  int64_t kept = 0, dropped = 0, strange = 0;
  try {
    FileWriter out(beside);
    for (std::string line; std::getline(in, line);) {
      const bool torn = in.eof();  // no newline at its end
      const std::optional<int64_t> step = torn ? std::nullopt : step_of(line);
      if (step && *step <= resume_step) {
        line += '\n';
        out.write(line.data(), line.size());
        ++kept;
      } else {
        ++dropped;
        if (!step && !torn) ++strange;
      }
    }
    check(!in.bad(), path, ": cannot be read");
    check(strange == 0 || strange < kept + dropped, path,
          ": exists and is no metrics log (no line is a JSON object with a step); move it away");
    out.finish();
    if (dropped > 0) {
      check(std::rename(beside.c_str(), path.c_str()) == 0, path,
            ": cannot be replaced: ", system_error_text(errno));
      sync_directory(target.parent_path().string());
    } else {
      ::unlink(beside.c_str());
    }
  } catch (...) {
    ::unlink(beside.c_str());
    throw;
  }
}

// The shortest text that reads back as the same double, in any locale.
std::string number_text(double number) {
  if (!std::isfinite(number)) return "null";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number).ptr;
  return std::string(buffer, end);
}

}  // namespace

MetricsLog::MetricsLog(std::string path, int64_t resume_step) : path_(std::move(path)) {
  drop_later_lines(path_, resume_step);
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  check(file_ >= 0, path_, ": cannot be opened: ", system_error_text(errno));
}

MetricsLog::~MetricsLog() { ::close(file_); }

void MetricsLog::write(int64_t step, const std::vector<std::pair<std::string, double>>& numbers) {
  std::string line = concat("{\"step\":", step);
  for (const auto& [name, number] : numbers) {
    check(name != "step", "metrics: step is the line's own field, not a number's name");
    try {
      line += concat(",", nlohmann::json(name).dump(), ":", number_text(number));
    } catch (const nlohmann::json::exception&) {
      throw Error(concat("metrics: the name ", quote(name), " is not UTF-8"));
    }
  }
  line += "}\n";
  struct stat before {};
  check(::fstat(file_, &before) == 0, path_, ": ", system_error_text(errno));
  ssize_t written = 0;
  do {
    written = ::write(file_, line.data(), line.size());
  } while (written < 0 && errno == EINTR);
  if (written == static_cast<ssize_t>(line.size())) return;
  // A part of a line would spoil the next one too.
  const int error = written < 0 ? errno : ENOSPC;
  const bool undone = ::ftruncate(file_, before.st_size) == 0;
  throw Error(concat(path_, ": cannot be written: ", system_error_text(error),
                     undone ? "" : "; its last line is incomplete"));
}

void MetricsLog::sync() {
  check(::fsync(file_) == 0, path_, ": cannot be brought to disk: ", system_error_text(errno));
}

}  // namespace genie::training
