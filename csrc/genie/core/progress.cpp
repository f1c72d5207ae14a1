#include "genie/core/progress.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "genie/core/error.h"

namespace genie {
namespace {

std::string formatted(const char* format, double value) {
  char buffer[48];
  std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

std::string clock_text(double seconds) {
  if (!(seconds < 1e9)) return "?";
  const auto whole = static_cast<long long>(std::llround(seconds));
  const long long hours = whole / 3600, minutes = whole / 60 % 60, rest = whole % 60;
  char buffer[48];
  if (hours >= 24)
    std::snprintf(buffer, sizeof buffer, "%lldd %lldh", hours / 24, hours % 24);
  else if (hours > 0)
    std::snprintf(buffer, sizeof buffer, "%lld:%02lld:%02lld", hours, minutes, rest);
  else
    std::snprintf(buffer, sizeof buffer, "%lld:%02lld", minutes, rest);
  return buffer;
}

bool is_terminal(int file) {
  const char* kind = std::getenv("TERM");
  return ::isatty(file) && kind && std::string_view(kind) != "dumb";
}

size_t width_of(int file) {
  struct winsize size {};
  return ::ioctl(file, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 119u;
}

// A stopped terminal (Ctrl-S) or a full pipe is not ready; then the line is left out.
bool ready(int file) {
  struct pollfd request = {file, POLLOUT, 0};
  return ::poll(&request, 1, 0) == 1 && (request.revents & POLLOUT);
}

// Failures are ignored: a closed stderr must not end the work that is reported on.
void put(int file, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t written = ::write(file, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    done += static_cast<size_t>(written);
  }
}

}  // namespace

std::string format_progress(const ProgressState& state) {
  std::string line = concat(state.label, "  ", state.step, "/", state.total);
  for (const auto& [name, value] : state.values) line += concat("  ", name, " ", formatted("%.4g", value));
  const double rate = state.steps_per_second;
  if (rate > 0) {
    line += rate >= 0.1 ? concat("  ", formatted(rate >= 100 ? "%.0f" : "%.1f", rate), " steps/s")
                        : concat("  ", formatted("%.1f", 1 / rate), " s/step");
  }
  if (state.data_share >= 0) line += concat("  data ", formatted("%.0f", 100 * state.data_share), "%");
  if (rate > 0 && state.step < state.total)
    line += concat("  ETA ", clock_text(static_cast<double>(state.total - state.step) / rate));
  return line;
}

ProgressLine::ProgressLine(std::string label, int64_t total, int64_t first_step, Options options)
    : options_(std::move(options)),
      terminal_(is_terminal(options_.file)),
      shown_at_(options_.now()),
      shown_step_(first_step) {
  state_.label = std::move(label);
  state_.total = total;
  state_.step = first_step;
}

ProgressLine::ProgressLine(std::string label, int64_t total, int64_t first_step)
    : ProgressLine(std::move(label), total, first_step, Options{}) {}

ProgressLine::~ProgressLine() {
  if (open_) put(options_.file, "\n");
}

bool ProgressLine::due() const {
  if (options_.quiet) return false;
  const double interval = terminal_ ? options_.terminal_interval : options_.plain_interval;
  return std::chrono::duration<double>(options_.now() - shown_at_).count() >= interval;
}

void ProgressLine::update(int64_t step, const std::vector<std::pair<std::string, double>>& values,
                          double data_share) {
  if (options_.quiet) return;
  state_.step = step;
  if (!values.empty()) state_.values = values;
  state_.data_share = data_share;
  pending_ = true;
  if (due()) show(/*wait=*/false);
}

void ProgressLine::show(bool wait) {
  const Clock::time_point now = options_.now();
  const double elapsed = std::chrono::duration<double>(now - shown_at_).count();
  if (state_.step > shown_step_ && elapsed > 0) {
    // A mean over about the last half minute: steady, but it follows a change of pace.
    const double rate = static_cast<double>(state_.step - shown_step_) / elapsed;
    const double keep = state_.steps_per_second < 0 ? 0 : std::exp(-elapsed / 30);
    state_.steps_per_second = keep * state_.steps_per_second + (1 - keep) * rate;
  }
  shown_at_ = now;
  shown_step_ = state_.step;
  if (!wait && !ready(options_.file)) return;
  pending_ = false;
  std::string line = format_progress(state_);
  if (terminal_) {
    put(options_.file, concat("\r", line.substr(0, width_of(options_.file)), "\x1b[K"));
    open_ = true;
  } else {
    put(options_.file, line + "\n");
  }
}

void ProgressLine::print(const std::string& message) {
  if (options_.quiet) return;
  put(options_.file, concat(open_ ? "\r\x1b[K" : "", message, "\n"));
  if (std::exchange(open_, false)) show(/*wait=*/true);
}

void ProgressLine::finish() {
  if (options_.quiet) return;
  if (pending_) show(/*wait=*/true);
  if (std::exchange(open_, false)) put(options_.file, "\n");
}

}  // namespace genie
