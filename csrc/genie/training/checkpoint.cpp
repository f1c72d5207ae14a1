#include "genie/training/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <map>

#include "genie/core/error.h"
#include "genie/core/json.h"

namespace genie::training {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModel = "model.safetensors";
constexpr const char* kOptimizer = "optimizer.safetensors";
constexpr const char* kState = "state.json";
constexpr const char* kConfig = "config.yaml";
constexpr const char* kManifest = "manifest.json";
constexpr const char* kFormat = "genie_cpp checkpoint";
constexpr uint64_t kFormatVersion = 1;
constexpr uint64_t kMaxManifest = 64 << 10;
constexpr uint64_t kMaxText = 1 << 20;

using Manifest = std::map<std::string, FileSum>;

std::string join(const std::string& directory, const std::string& name) {
  return (fs::path(directory) / name).string();
}

std::string manifest_text(const Manifest& manifest) {
  nlohmann::json files = nlohmann::json::object();
  for (const auto& [name, sum] : manifest) files[name] = {{"size", sum.size}, {"crc32", sum.crc32}};
  const nlohmann::json json = {{"format", kFormat}, {"format_version", kFormatVersion}, {"files", files}};
  return json.dump(2) + "\n";
}

Manifest read_manifest(const std::string& directory) {
  std::error_code ignored;
  check(fs::is_directory(directory, ignored), directory, ": no such checkpoint directory");
  const std::string path = join(directory, kManifest);
  const auto json = parse_json(read_text(path, kMaxManifest));
  check(json && json->is_object() && json->contains("format") && (*json)["format"] == kFormat, path,
        ": not the manifest of a genie_cpp checkpoint");
  check(json->contains("format_version") && (*json)["format_version"].is_number_unsigned(), path,
        ": format_version: expected a whole number");
  const uint64_t version = (*json)["format_version"].get<uint64_t>();
  check(version == kFormatVersion, path, ": checkpoint format ", version, ", this genie_cpp reads format ",
        kFormatVersion, version > kFormatVersion ? "; use a newer genie_cpp" : "");
  check(json->contains("files") && (*json)["files"].is_object(), path, ": files: expected an object");
  const nlohmann::json& files = (*json)["files"];
  Manifest manifest;
  for (const char* name : {kModel, kOptimizer, kState, kConfig}) {
    check(files.contains(name) && files[name].is_object(), path, ": does not list ", name);
    const nlohmann::json& file = files[name];
    for (const char* key : {"size", "crc32"}) {
      check(file.contains(key) && file[key].is_number_unsigned(), path, ": ", name, ": ", key,
            ": expected a whole number");
    }
    check(file["crc32"].get<uint64_t>() <= UINT32_MAX, path, ": ", name, ": crc32: expected 32 bits");
    manifest[name] = {file["size"].get<uint64_t>(), static_cast<uint32_t>(file["crc32"].get<uint64_t>())};
  }
  return manifest;
}

void compare(const std::string& path, const FileSum& found, const FileSum& expected) {
  check(found.size == expected.size, path, ": damaged: it has ", found.size, " bytes, its manifest says ",
        expected.size);
  check(found.crc32 == expected.crc32, path, ": damaged: its checksum is not the manifest's");
}

// Sizes alone, before anything is read: the cheapest sign of a truncated file.
void compare_size(const std::string& path, const FileSum& expected) {
  const uint64_t size = FileReader(path).size();
  compare(path, {size, expected.crc32}, expected);
}

std::string load_text(const std::string& directory, const char* name, const Manifest& manifest) {
  const std::string path = join(directory, name);
  compare_size(path, manifest.at(name));
  FileSum sum;
  std::string text = read_text(path, kMaxText, &sum);
  compare(path, sum, manifest.at(name));
  return text;
}

TensorMap load_tensors(const std::string& directory, const char* name, const Manifest& manifest) {
  const std::string path = join(directory, name);
  compare_size(path, manifest.at(name));
  FileSum sum;
  TensorMap tensors = load_safetensors(path, nullptr, &sum);
  compare(path, sum, manifest.at(name));
  return tensors;
}

void write_files(const std::string& directory, const CheckpointData& data) {
  check(data.config_yaml.size() <= kMaxText, directory, ": config.yaml takes ", data.config_yaml.size(),
        " bytes, at most ", kMaxText, " are accepted");
  Manifest manifest;
  manifest[kModel] = save_safetensors(join(directory, kModel), data.model);
  manifest[kOptimizer] = save_safetensors(join(directory, kOptimizer), data.optimizer);
  const std::string state = to_json(data.state);
  check(state.size() <= kMaxText, directory, ": state.json takes ", state.size(), " bytes, at most ",
        kMaxText, " are accepted");
  manifest[kState] = write_text(join(directory, kState), state);
  manifest[kConfig] = write_text(join(directory, kConfig), data.config_yaml);
  const std::string text = manifest_text(manifest);
  manifest[kManifest] = write_text(join(directory, kManifest), text);
  for (const auto& [name, sum] : manifest) {
    const std::string path = join(directory, name);
    check(sum_file(path, /*from_disk=*/true) == sum, path,
          ": reads back otherwise than it was written; the disk or its file system is faulty");
  }
  sync_directory(directory);
}

// Only what save_checkpoint wrote may be replaced: never a directory with someone's other files.
void check_replaceable(const std::string& path) {
  check(fs::is_directory(path), path, ": exists and is no directory");
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string name = entry.path().filename().string();
    const bool ours =
        name == kModel || name == kOptimizer || name == kState || name == kConfig || name == kManifest;
    check(ours, path, ": holds ", quote(name),
          ", which is no part of a checkpoint; choose another directory");
  }
}

// Puts the finished directory `from` at `to`.
void install(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) == 0) return;
  check(errno == EEXIST || errno == ENOTEMPTY, to, ": cannot be renamed to: ", system_error_text(errno));
#ifdef RENAME_EXCHANGE
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    fs::remove_all(from);
    return;
  }
#endif
  // A file system that cannot exchange: CheckpointWriter brings .old- back if we die between the two renames.
  const fs::path target(to);
  const std::string old = (target.parent_path() / (".old-" + target.filename().string())).string();
  fs::remove_all(old);
  check(std::rename(to.c_str(), old.c_str()) == 0, to, ": cannot be renamed: ", system_error_text(errno));
  check(std::rename(from.c_str(), to.c_str()) == 0, to, ": cannot be renamed to: ", system_error_text(errno));
  fs::remove_all(old);
}

}  // namespace

void save_checkpoint(const std::string& path, const CheckpointData& data) {
  // "runs/model/" has an empty file name.
  const fs::path target = fs::path(path).has_filename() ? fs::path(path) : fs::path(path).parent_path();
  const std::string beside =
      (target.parent_path() / concat(".tmp-", target.filename().string(), "-", ::getpid())).string();
  try {
    if (!target.parent_path().empty()) fs::create_directories(target.parent_path());
    if (fs::exists(target)) check_replaceable(target.string());
    fs::remove_all(beside);
    fs::create_directory(beside);
    write_files(beside, data);
    install(beside, target.string());
    sync_directory(target.parent_path().string());
  } catch (const fs::filesystem_error& error) {
    std::error_code ignored;
    fs::remove_all(beside, ignored);
    throw Error(concat(path, ": cannot be written: ", system_error_text(error.code().value())));
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(beside, ignored);
    throw;
  }
}

CheckpointData load_checkpoint(const std::string& path, bool with_optimizer) {
  const Manifest manifest = read_manifest(path);
  CheckpointData data;
  data.state = parse_train_state(load_text(path, kState, manifest), join(path, kState));
  data.config_yaml = load_text(path, kConfig, manifest);
  data.model = load_tensors(path, kModel, manifest);
  if (with_optimizer) data.optimizer = load_tensors(path, kOptimizer, manifest);
  return data;
}

void verify_checkpoint(const std::string& path, bool with_optimizer) {
  const Manifest manifest = read_manifest(path);
  for (const auto& [name, sum] : manifest) {
    if (name == kOptimizer && !with_optimizer) continue;
    compare_size(join(path, name), sum);
  }
  parse_train_state(load_text(path, kState, manifest), join(path, kState));
  load_text(path, kConfig, manifest);
  for (const char* name : {kModel, kOptimizer}) {
    if (name == kOptimizer && !with_optimizer) continue;
    const std::string file = join(path, name);
    compare(file, sum_file(file), manifest.at(name));
    read_safetensors_header(file);
  }
}

std::string checkpoint_name(int64_t step) {
  const std::string digits = std::to_string(step);
  return "step_" + std::string(8 - std::min<size_t>(8, digits.size()), '0') + digits;
}

std::vector<int64_t> checkpoint_steps(const std::string& directory) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    int64_t step = -1;
    if (name.rfind("step_", 0) == 0) std::from_chars(name.data() + 5, name.data() + name.size(), step);
    std::error_code ignored;
    if (step >= 0 && name == checkpoint_name(step) && entry->is_directory(ignored)) steps.push_back(step);
  }
  check(!error || error == std::errc::no_such_file_or_directory, directory,
        ": cannot be read: ", error.message());
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::optional<std::string> latest_checkpoint(const std::string& directory, std::string* warning,
                                             bool with_optimizer) {
  std::vector<int64_t> steps = checkpoint_steps(directory);
  std::string problems;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const std::string path = join(directory, checkpoint_name(*step));
    try {
      verify_checkpoint(path, with_optimizer);
      if (warning) *warning = problems;
      return path;
    } catch (const Error& error) {
      problems += concat(problems.empty() ? "" : "\n", error.what());
    }
  }
  check(steps.empty(), directory, ": none of its ", steps.size(), " checkpoints can be read (", problems,
        "); move them away to start anew");
  if (warning) warning->clear();
  return std::nullopt;
}

}  // namespace genie::training
