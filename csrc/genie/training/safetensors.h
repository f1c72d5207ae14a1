#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "genie/core/file.h"

namespace genie::training {

// The safetensors format (huggingface/safetensors): 8 bytes, the header's size N (little endian); N bytes of
// JSON, {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ..., "__metadata__": {"key": "text"}};
// then the tensors' bytes, row-major, without holes. Element types: BOOL, U8, I8, I16, I32, I64, F16, BF16,
// F32, F64.

using TensorMap = std::map<std::string, at::Tensor>;
using Metadata = std::map<std::string, std::string>;

/// A tensor as the header describes it; [begin, end) are bytes after the header.
struct TensorInfo {
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, TensorInfo> tensors;
  Metadata metadata;
};

/// Headers above this size are refused: 4 MiB describe some 40,000 tensors.
inline constexpr uint64_t kMaxSafetensorsHeader = uint64_t{4} << 20;

/// Writes the tensors (of any device and strides) and brings the file to disk. Not atomic: a failed write
/// leaves a part that load_safetensors refuses. Throws Error for an element type the format lacks, an
/// undefined or sparse tensor, a name that is not UTF-8 or is "__metadata__", and a failed write.
FileSum save_safetensors(const std::string& path, const TensorMap& tensors, const Metadata& metadata = {});

/// Reads all tensors into CPU memory of their own. Everything the header says is checked against the file's
/// real size before memory for it is taken, so a foreign, truncated or lying file is an Error that names the
/// file and what is wrong, and costs little. `sum` receives the size and checksum of what was read.
TensorMap load_safetensors(const std::string& path, Metadata* metadata = nullptr, FileSum* sum = nullptr);

/// The header alone, checked in the same way.
SafetensorsHeader read_safetensors_header(const std::string& path);

/// Parses and checks the JSON of a header that `data_size` bytes follow; `path` is for messages.
SafetensorsHeader parse_safetensors_header(std::string json, uint64_t data_size, const std::string& path);

/// The element type of a dtype's name; throws Error (`path` is for the message) for one that is not
/// supported.
at::ScalarType safetensors_dtype(const std::string& name, const std::string& path);

/// The dtype's name of an element type; empty for one the format lacks.
std::string safetensors_dtype_name(at::ScalarType type);

}  // namespace genie::training
