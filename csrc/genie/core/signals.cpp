#include "genie/core/signals.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "genie/core/error.h"

namespace genie {
namespace {

constexpr std::array<int, 2> kSignals = {SIGINT, SIGTERM};

// -1: asked for without a signal. Handlers may only touch lock-free atomics.
std::atomic<int> stop_state{0};
std::atomic<const char*> stop_notice{nullptr};
std::atomic<bool> installed{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<const char*>::is_always_lock_free);

std::array<struct sigaction, kSignals.size()> previous;

extern "C" void on_stop_signal(int signal) {
  if (int none = 0; !stop_state.compare_exchange_strong(none, signal)) ::_exit(128 + signal);
  const char* notice = stop_notice.load();
  if (!notice) return;
  const int error = errno;
  if (::write(STDERR_FILENO, notice, std::strlen(notice)) < 0) errno = error;
  errno = error;
}

}  // namespace

StopSignals::StopSignals(const char* notice) {
  check(!installed.exchange(true), "stop signals are handled already: two trainings in one process?");
  clear_stop();
  stop_notice = notice;
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], nullptr, &previous[i]);
    if (previous[i].sa_handler != SIG_IGN) ::sigaction(kSignals[i], &action, nullptr);
  }
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &previous[i], nullptr);
  stop_notice = nullptr;
  installed = false;
}

bool stop_requested() { return stop_state.load() != 0; }

int stop_signal() { return stop_state.load() > 0 ? stop_state.load() : 0; }

void request_stop() {
  int none = 0;
  stop_state.compare_exchange_strong(none, -1);
}

void clear_stop() { stop_state = 0; }

}  // namespace genie
