#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "genie/training/safetensors.h"
#include "genie/training/train_state.h"

namespace genie::training {

// A checkpoint is a directory:
//   model.safetensors  optimizer.safetensors  state.json  config.yaml
//   manifest.json      format version, size and checksum of each of the others
// A phase's checkpoints stand together: step_00000500/, step_00001000/, ..., and `latest`, a text file with
// the name of the newest that was written whole. Names that start with a dot are work in progress.

struct CheckpointData {
  TensorMap model;
  TensorMap optimizer;
  TrainState state;
  std::string config_yaml;
};

/// Writes a checkpoint directory so that `path` never holds a half one: beside it, to disk, read back and
/// compared, then renamed. A checkpoint that stands there already is replaced; a directory that holds
/// anything else is an Error. A failure leaves `path` as it was.
void save_checkpoint(const std::string& path, const CheckpointData& data);

/// Reads a checkpoint and compares each file with the manifest. Throws Error naming the file for anything
/// missing, damaged, foreign or of another format version. Without `with_optimizer` its file is not touched.
CheckpointData load_checkpoint(const std::string& path, bool with_optimizer = true);

/// Throws as load_checkpoint would, but keeps nothing in memory.
void verify_checkpoint(const std::string& path, bool with_optimizer = true);

/// "step_00000500" for 500.
std::string checkpoint_name(int64_t step);

/// The steps of the checkpoint directories in `directory`, in ascending order, good or not; none where there
/// is no such directory.
std::vector<int64_t> checkpoint_steps(const std::string& directory);

/// The newest checkpoint in `directory` that verifies; nothing where there is none at all. Damaged ones that
/// were passed over are described in `warning` (a line each). Where there are checkpoints and all are
/// damaged it throws, since starting anew would hide the loss.
std::optional<std::string> latest_checkpoint(const std::string& directory, std::string* warning = nullptr,
                                             bool with_optimizer = true);

}  // namespace genie::training
