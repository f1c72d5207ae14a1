#include "genie/inference/session_file.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <filesystem>
#include <utility>
#include <vector>

#include "genie/core/error.h"
#include "genie/core/random.h"
#include "genie/training/module_state.h"
#include "genie/training/safetensors.h"

namespace genie::inference {
namespace {

using training::Metadata;
using training::TensorMap;

constexpr const char* kFormat = "genie_cpp session";
constexpr const char* kVersion = "1";
constexpr int64_t kNumbers = 8;  // entries of the tensor "numbers"

/// Tells models apart: the architecture, and every weight that frames depend on.
std::string fingerprint(models::Genie genie) {
  config::Config shape;
  shape.data.num_frames = genie->config().data.num_frames;
  shape.data.height = genie->config().data.height;
  shape.data.width = genie->config().data.width;
  shape.tokenizer = genie->config().tokenizer;
  shape.latent_action = genie->config().latent_action;
  shape.dynamics = genie->config().dynamics;
  uint64_t hash = stable_hash(config::to_yaml(shape));
  hash = training::weights_hash(*genie->tokenizer(), hash);
  hash = training::weights_hash(*genie->dynamics(), hash);
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

std::string cache_name(const char* cache, size_t index) { return concat(cache, ".", index); }

void put_cache(TensorMap& tensors, const char* name, const CacheState& cache) {
  for (size_t i = 0; i < cache.tensors.size(); ++i) {
    if (cache.tensors[i].defined()) tensors[cache_name(name, i)] = cache.tensors[i];
  }
}

/// The tensors of a cache; `count` of them, or as many more as there are in the file.
std::vector<at::Tensor> take_cache(const TensorMap& tensors, const char* name, size_t count,
                                   const at::Device& device) {
  std::vector<at::Tensor> found(count);
  for (size_t i = 0; i < count || tensors.contains(cache_name(name, i)); ++i) {
    const auto entry = tensors.find(cache_name(name, i));
    if (i >= found.size()) found.emplace_back();
    if (entry != tensors.end()) found[i] = entry->second.to(device);
  }
  return found;
}

const at::Tensor& take(const TensorMap& tensors, const std::string& path, const char* name,
                       at::ScalarType type, int64_t dimensions) {
  const auto entry = tensors.find(name);
  check(entry != tensors.end() && entry->second.scalar_type() == type && entry->second.dim() == dimensions,
        path, ": the session lacks ", name, ", or it is of another type; the file is damaged");
  return entry->second;
}

}  // namespace

void save_session(const WorldSession& session, const std::string& path, const std::string& note) {
  const SessionState state = session.state();
  TensorMap tensors = {{"tokens", state.tokens},
                       {"leading", state.leading},
                       {"frames", state.frames},
                       {"actions", state.actions}};
  const std::vector<int64_t> numbers = {static_cast<int64_t>(state.seed),
                                        state.first,
                                        state.world.begin,
                                        state.world.length,
                                        state.world.reached,
                                        state.decoder.begin,
                                        state.decoder.length,
                                        state.decoder.reached};
  tensors["numbers"] = at::tensor(numbers, at::kLong);
  put_cache(tensors, "world", state.world);
  put_cache(tensors, "decoder", state.decoder);
  config::Config options;
  options.inference = state.options;
  options.tokenizer.quantizer.num_codes = 65536;  // top_k may be anything up to that
  const Metadata metadata = {{"format", kFormat},
                             {"version", kVersion},
                             {"model", fingerprint(session.genie())},
                             {"note", note},
                             {"options", config::to_yaml(options)}};
  const std::string partial = path + ".partial";
  training::save_safetensors(partial, tensors, metadata);
  std::filesystem::rename(partial, path);
}

WorldSession load_session(models::Genie genie, const std::string& path, std::string* note) {
  const auto header = training::read_safetensors_header(path);  // before much is read
  const auto text = [&](const char* key) {
    const auto entry = header.metadata.find(key);
    return entry == header.metadata.end() ? std::string() : entry->second;
  };
  check(text("format") == kFormat, path, ": not a session; Session.save writes one");
  check(text("version") == kVersion, path, ": a session of format version '", text("version"),
        "', this program reads version ", kVersion);
  check(
      text("model") == fingerprint(genie), path,
      ": the session was played with another model (or with other weights); load the run it was saved with");
  const TensorMap tensors = training::load_safetensors(path);
  const at::Device device = genie->parameters().front().device();
  if (note) *note = text("note");
  SessionState state;
  state.options = config::parse_config(text("options"), path).inference;
  state.tokens = take(tensors, path, "tokens", at::kLong, 3).to(device);
  state.leading = take(tensors, path, "leading", at::kLong, 2).to(device);
  state.frames = take(tensors, path, "frames", at::kByte, 5);
  state.actions = take(tensors, path, "actions", at::kLong, 2);
  const at::Tensor& numbers = take(tensors, path, "numbers", at::kLong, 1);
  check(numbers.size(0) == kNumbers, path, ": the session holds ", numbers.size(0), " numbers, not ",
        kNumbers, "; the file is damaged");
  const auto* number = numbers.const_data_ptr<int64_t>();
  state.seed = static_cast<uint64_t>(number[0]);
  state.first = number[1];
  const auto& config = genie->config();
  state.world = {number[2], number[3], number[4],
                 take_cache(tensors, "world", 2 * config.dynamics.transformer.depth, device)};
  state.decoder = {number[5], number[6], number[7],
                   take_cache(tensors, "decoder", 2 * config.tokenizer.decoder.depth, device)};
  try {
    return {std::move(genie), state};
  } catch (const c10::Error& error) {
    throw Error(concat(
        path, ": the session contradicts itself, the file is damaged: ", error.what_without_backtrace()));
  }
}

}  // namespace genie::inference
