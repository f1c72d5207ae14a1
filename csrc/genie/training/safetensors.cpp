#include "genie/training/safetensors.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>

#include "genie/core/error.h"
#include "genie/core/json.h"

namespace genie::training {
namespace {

static_assert(std::endian::native == std::endian::little, "the format's numbers are little endian");

std::string json_text(const std::string& path, const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    throw Error(concat(path, ": cannot hold the name ", quote(text), ": it is not UTF-8"));
  }
}

SafetensorsHeader read_header(FileReader& reader, const std::string& path) {
  check(reader.size() >= 8, path, ": not a safetensors file: it has ", reader.size(),
        " bytes, the header alone takes more");
  uint64_t header_size = 0;
  reader.read(&header_size, 8);
  const uint64_t rest = reader.size() - 8;
  check(header_size <= rest, path, ": not a safetensors file, or truncated: its header should take ",
        header_size, " bytes, ", rest, " follow");
  check(header_size <= kMaxSafetensorsHeader, path, ": its header takes ", header_size, " bytes, at most ",
        kMaxSafetensorsHeader, " are accepted");
  std::string json(header_size, '\0');
  reader.read(json.data(), json.size());
  return parse_safetensors_header(std::move(json), rest - header_size, path);
}

}  // namespace

FileSum save_safetensors(const std::string& path, const TensorMap& tensors, const Metadata& metadata) {
  // Larger elements first, so that each tensor starts at a multiple of its element size.
  std::vector<const TensorMap::value_type*> order;
  for (const auto& entry : tensors) {
    const auto& [name, tensor] = entry;
    check(name != "__metadata__", path, ": a tensor cannot be called __metadata__");
    check(tensor.defined() && tensor.layout() == at::kStrided, path, ": tensor ", quote(name),
          " is undefined or sparse; only dense tensors can be written");
    check(!safetensors_dtype_name(tensor.scalar_type()).empty(), path, ": tensor ", quote(name), " is ",
          c10::toString(tensor.scalar_type()), ", which safetensors files cannot hold here");
    order.push_back(&entry);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return a->second.element_size() > b->second.element_size();
  });

  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      if (header.back() != '{') header += ',';
      header += json_text(path, key) + ':' + json_text(path, value);
    }
    header += '}';
  }
  uint64_t offset = 0;
  for (const auto* entry : order) {
    const at::Tensor& tensor = entry->second;
    if (header.size() > 1) header += ',';
    header += concat(json_text(path, entry->first), ":{\"dtype\":\"",
                     safetensors_dtype_name(tensor.scalar_type()), "\",\"shape\":[");
    for (int64_t i = 0; i < tensor.dim(); ++i) header += concat(i ? "," : "", tensor.size(i));
    header += concat("],\"data_offsets\":[", offset, ",", offset + tensor.nbytes(), "]}");
    offset += tensor.nbytes();
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  check(header.size() <= kMaxSafetensorsHeader, path, ": ", tensors.size(),
        " tensors are more than one file can hold; write several files");

  FileWriter writer(path);
  const uint64_t header_size = header.size();
  writer.write(&header_size, 8);
  writer.write(header.data(), header.size());
  for (const auto* entry : order) {
    const at::Tensor bytes = entry->second.detach().to(at::kCPU).contiguous();
    writer.write(bytes.const_data_ptr(), bytes.nbytes());
  }
  return writer.finish();
}

TensorMap load_safetensors(const std::string& path, Metadata* metadata, FileSum* sum) {
  FileReader reader(path);
  SafetensorsHeader header = read_header(reader, path);
  std::vector<std::pair<const std::string, TensorInfo>*> order;
  for (auto& entry : header.tensors) order.push_back(&entry);
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return a->second.begin < b->second.begin; });
  TensorMap tensors;
  for (const auto* entry : order) {
    const auto& [name, info] = *entry;
    at::Tensor tensor = at::empty(info.shape, at::dtype(safetensors_dtype(info.dtype, path)));
    reader.read(tensor.mutable_data_ptr(), tensor.nbytes());
    if (tensor.scalar_type() == at::kBool) {
      // A bool of another value is undefined behaviour for whoever reads it.
      const auto* bytes = static_cast<const unsigned char*>(tensor.const_data_ptr());
      check(std::all_of(bytes, bytes + tensor.nbytes(), [](unsigned char b) { return b <= 1; }), path,
            ": tensor ", quote(name), ": a BOOL that is neither 0 nor 1");
    }
    tensors.emplace(name, std::move(tensor));
  }
  if (metadata) *metadata = std::move(header.metadata);
  if (sum) *sum = reader.sum();
  return tensors;
}

SafetensorsHeader read_safetensors_header(const std::string& path) {
  FileReader reader(path);
  return read_header(reader, path);
}

}  // namespace genie::training
