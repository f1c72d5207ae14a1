#pragma once

#include <cstdint>
#include <future>
#include <string>

#include "genie/training/checkpoint.h"

namespace genie::training {

/// Writes a phase's checkpoints while training goes on, and removes old ones. One process writes to a
/// directory at a time. Make the writer before asking latest_checkpoint where to resume: it removes, or puts
/// back, what a crashed run left half done.
class CheckpointWriter {
 public:
  /// Creates `directory` where it is missing. Keeps the `keep_last` newest checkpoints and, for good, those
  /// at multiples of `keep_every` steps (0: none). Throws Error if another process writes there.
  CheckpointWriter(std::string directory, int64_t keep_last, int64_t keep_every);

  /// Waits for a write in flight; says on stderr if it failed and nobody called wait().
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Copies the tensors to CPU memory and writes them to step_<data.state.step> from another thread. One
  /// write is in flight at a time: a second call first waits, and throws if the one before failed.
  void write_async(const CheckpointData& data);

  /// Waits for the write in flight. Throws the Error of a failed write (a full disk, say), which names the
  /// last good checkpoint; that one is untouched, and a later write may succeed. Returns a warning, mostly
  /// empty: an old checkpoint that could not be removed.
  std::string wait();

  /// The newest checkpoint that this writer, or an earlier one, finished; empty if there is none.
  std::string last_good() const;

 private:
  std::string write(const CheckpointData& data) const;
  std::string prune(int64_t newest) const;
  void lock();
  void recover() const;

  std::string directory_;
  int64_t keep_last_;
  int64_t keep_every_;
  int lock_ = -1;
  std::future<std::string> pending_;
  std::string warning_;
};

}  // namespace genie::training
