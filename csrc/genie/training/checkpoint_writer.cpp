#include "genie/training/checkpoint_writer.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <exception>
#include <filesystem>
#include <iostream>
#include <utility>

#include "genie/core/error.h"

namespace genie::training {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLatest = "latest";
constexpr uint64_t kMaxName = 64;

std::string join(const std::string& directory, const std::string& name) {
  return (fs::path(directory) / name).string();
}

TensorMap copy_to_cpu(const TensorMap& tensors) {
  TensorMap copies;
  for (const auto& [name, tensor] : tensors) {
    check(tensor.defined(), "checkpoint: tensor ", name, " is undefined");
    copies[name] = tensor.detach().to(at::kCPU, tensor.scalar_type(), /*non_blocking=*/false, /*copy=*/true,
                                      at::MemoryFormat::Contiguous);
  }
  return copies;
}

}  // namespace

CheckpointWriter::CheckpointWriter(std::string directory, int64_t keep_last, int64_t keep_every)
    : directory_(std::move(directory)), keep_last_(keep_last), keep_every_(keep_every) {
  check(keep_last_ >= 1 && keep_every_ >= 0, "checkpoints: keep_last ", keep_last_,
        " must be at least 1 and ", "keep_every ", keep_every_, " at least 0");
  std::error_code error;
  fs::create_directories(directory_, error);
  check(!error, directory_, ": cannot be created: ", system_error_text(error.value()));
  lock();
  try {
    recover();
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

CheckpointWriter::~CheckpointWriter() {
  try {
    wait();
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
  }
  ::close(lock_);
}

// A record lock: unlike flock's it is not inherited by processes that outlive this one.
void CheckpointWriter::lock() {
  const std::string path = join(directory_, ".lock");
  lock_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  check(lock_ >= 0, path, ": cannot be created: ", system_error_text(errno));
  struct flock request {};
  request.l_type = F_WRLCK;
  request.l_whence = SEEK_SET;
  // File systems without locks (ENOLCK, EINVAL) go unguarded.
  if (::fcntl(lock_, F_SETLK, &request) == 0 || (errno != EACCES && errno != EAGAIN)) return;
  const bool known = ::fcntl(lock_, F_GETLK, &request) == 0 && request.l_type != F_UNLCK;
  ::close(lock_);
  throw Error(concat(directory_, ": another process",
                     known ? concat(" (", request.l_pid, ")") : std::string(),
                     " writes checkpoints here; stop it or choose another run directory"));
}

void CheckpointWriter::recover() const {
  std::error_code error;
  std::vector<fs::path> entries;
  for (fs::directory_iterator entry(directory_, error), end; !error && entry != end; entry.increment(error))
    entries.push_back(entry->path());
  check(!error, directory_, ": cannot be read: ", error.message());
  for (const fs::path& path : entries) {
    const std::string name = path.filename().string();
    std::error_code failed;
    if (name.rfind(".old-", 0) == 0 && !fs::exists(fs::path(directory_) / name.substr(5))) {
      fs::rename(path, fs::path(directory_) / name.substr(5), failed);
    } else if (name.rfind(".tmp-", 0) == 0 || name.rfind(".old-", 0) == 0) {
      fs::remove_all(path, failed);
    }
    check(!failed, path.string(), ": left by a crashed run, cannot be removed: ", failed.message());
  }
}

void CheckpointWriter::write_async(const CheckpointData& data) {
  std::string warning = wait();
  if (!warning.empty()) warning_ = std::move(warning);
  CheckpointData copy{copy_to_cpu(data.model), copy_to_cpu(data.optimizer), data.state, data.config_yaml};
  pending_ = std::async(std::launch::async, [this, copy = std::move(copy)] { return write(copy); });
}

std::string CheckpointWriter::wait() {
  std::string warning = std::exchange(warning_, {});
  if (pending_.valid()) {
    const std::string newer = pending_.get();
    if (!newer.empty()) warning += (warning.empty() ? "" : "\n") + newer;
  }
  return warning;
}

std::string CheckpointWriter::last_good() const {
  try {
    std::string name = read_text(join(directory_, kLatest), kMaxName);
    while (!name.empty() && name.back() == '\n') name.pop_back();
    if (!name.empty()) return join(directory_, name);
  } catch (const Error&) {
    // No checkpoint was finished yet.
  }
  return "";
}

std::string CheckpointWriter::write(const CheckpointData& data) const {
  const std::string name = checkpoint_name(data.state.step);
  try {
    save_checkpoint(join(directory_, name), data);
    replace_text(join(directory_, kLatest), name + "\n");
  } catch (const std::exception& error) {
    const std::string good = last_good();
    throw Error(concat(
        "checkpoint of step ", data.state.step, " was not written: ", error.what(),
        good.empty() ? "; there is none yet to go back to" : concat("; the last good checkpoint is ", good)));
  }
  return prune(data.state.step);
}

// Counts down from the one just written. Directories of later steps were left by a run that got further and
// was damaged there: they are not ours to remove, and count for nothing.
std::string CheckpointWriter::prune(int64_t newest) const {
  std::string warning;
  const std::vector<int64_t> steps = checkpoint_steps(directory_);
  int64_t kept = 0;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    if (*step > newest || kept++ < keep_last_) continue;
    if (keep_every_ > 0 && *step % keep_every_ == 0) continue;
    // Renamed first: a crash half way through the removal leaves nothing that looks like a checkpoint.
    const fs::path path = fs::path(directory_) / checkpoint_name(*step);
    const fs::path doomed = fs::path(directory_) / (".tmp-pruned-" + checkpoint_name(*step));
    std::error_code error;
    fs::rename(path, doomed, error);
    if (!error) fs::remove_all(doomed, error);
    if (error)
      warning += concat(warning.empty() ? "" : "\n", path.string(), ": cannot be removed: ", error.message());
  }
  return warning;
}

}  // namespace genie::training
