#pragma once

namespace genie {

/// While it lives, SIGINT and SIGTERM set a flag instead of ending the process: the loop that asks
/// stop_requested() finishes its step, saves and returns. A second signal ends the process at once, with exit
/// code 128 + signal. The handlers found before come back with the destructor. A signal the process was
/// started to ignore (nohup, a shell's background job) stays ignored. One at a time.
class StopSignals {
 public:
  /// `notice`, a text that outlives this object, is written to stderr at the first signal.
  explicit StopSignals(const char* notice = nullptr);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
};

/// Whether a signal came, or request_stop was called, since the flag was last cleared.
bool stop_requested();

/// The signal that came first; 0 if none did.
int stop_signal();

/// Does what a signal does, for callers that learn of a stop in another way (Python's KeyboardInterrupt).
void request_stop();

/// Forgets a request. A new StopSignals does so too.
void clear_stop();

}  // namespace genie
