#include "genie/training/token_cache.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>

#include "genie/core/error.h"
#include "genie/core/file.h"
#include "genie/core/json.h"

namespace genie::training {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxKey = 1 << 20;

std::string key_path(const std::string& directory) { return directory + "/key.json"; }
std::string data_path(const std::string& directory) { return directory + "/tokens.bin"; }

std::string to_json(const CacheKey& key) { return nlohmann::json(key).dump(2) + "\n"; }

/// Nothing where there is no key that can be read.
std::optional<CacheKey> read_key(const std::string& directory) {
  std::error_code ignored;
  if (!fs::exists(key_path(directory), ignored)) return std::nullopt;
  try {
    const auto json = parse_json(read_text(key_path(directory), kMaxKey));
    if (json) return json->get<CacheKey>();
  } catch (const Error&) {
  } catch (const nlohmann::json::exception&) {
  }
  return std::nullopt;
}

std::string differences(const CacheKey& found, const CacheKey& expected) {
  std::string text;
  const auto add = [&text](const std::string& name) { text += (text.empty() ? "" : ", ") + name; };
  for (const auto& [name, value] : expected) {
    const auto other = found.find(name);
    if (other == found.end() || other->second != value) add(name);
  }
  for (const auto& item : found) {
    if (!expected.count(item.first)) add(item.first);
  }
  return text;
}

}  // namespace

std::string TokenCache::prepare(const std::string& directory, const CacheKey& key) {
  std::error_code error;
  fs::create_directories(directory, error);
  check(!error, directory, ": cannot be created: ", system_error_text(error.value()));
  const std::optional<CacheKey> found = read_key(directory);
  if (found == key) return "";
  const bool existed = fs::exists(data_path(directory), error);
  // The data first: whatever happens between, no key stands beside data that it does not describe.
  fs::remove(data_path(directory), error);
  check(!error, data_path(directory), ": cannot be removed: ", system_error_text(error.value()));
  sync_directory(directory);
  replace_text(key_path(directory), to_json(key));
  if (!existed) return "";
  return found ? differences(*found, key) : "its key.json cannot be read";
}

TokenCache::TokenCache(const std::string& directory, const CacheKey& key, const Shape& shape)
    : path_(data_path(directory)), shape_(shape) {
  const std::optional<CacheKey> found = read_key(directory);
  check(found.has_value(), directory,
        " holds no token cache; several processes need one directory that all see");
  check(*found == key, directory, " holds a token cache made from other: ", differences(*found, key));
  file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  check(file_ >= 0, path_, ": cannot be opened: ", system_error_text(errno));
}

TokenCache::~TokenCache() { ::close(file_); }

bool TokenCache::load(int64_t clip, std::vector<uint16_t>& numbers) const {
  check(clip >= 0 && clip < shape_.clips, path_, ": clip ", clip, " of ", shape_.clips);
  std::vector<char> record(record_bytes());
  size_t got = 0;
  while (got < record.size()) {
    const ssize_t read = ::pread(file_, record.data() + got, record.size() - got,
                                 clip * record_bytes() + static_cast<int64_t>(got));
    if (read < 0 && errno == EINTR) continue;
    check(read >= 0, path_, ": cannot be read: ", system_error_text(errno));
    if (read == 0) return false;  // the file ends before: not written yet
    got += static_cast<size_t>(read);
  }
  uint32_t sum = 0;
  std::memcpy(&sum, record.data(), sizeof sum);
  const auto* payload = reinterpret_cast<const Bytef*>(record.data() + 4);
  if (sum != ::crc32(0, payload, static_cast<uInt>(record.size() - 4))) return false;
  numbers.resize(this->numbers());
  std::memcpy(numbers.data(), payload, record.size() - 4);
  return true;
}

bool TokenCache::has(int64_t clip) const {
  std::vector<uint16_t> ignored;
  return load(clip, ignored);
}

TokenCache::Clip TokenCache::read(int64_t clip) const {
  std::vector<uint16_t> numbers;
  check(load(clip, numbers), path_, ": clip ", clip,
        " is missing or damaged; stop training, remove the file and start with --resume");
  const at::Tensor all = at::empty({this->numbers()}, at::kLong);
  std::copy(numbers.begin(), numbers.end(), all.mutable_data_ptr<int64_t>());
  const int64_t tokens = shape_.frames * shape_.tokens_per_frame;
  return {all.narrow(0, 0, tokens).view({shape_.frames, shape_.tokens_per_frame}),
          all.narrow(0, tokens, shape_.frames - 1)};
}

void TokenCache::write(int64_t clip, const at::Tensor& tokens, const at::Tensor& actions) {
  check(clip >= 0 && clip < shape_.clips, path_, ": clip ", clip, " of ", shape_.clips);
  const at::Tensor all = at::cat({tokens.flatten(), actions.flatten()}).to(at::kCPU, at::kLong).contiguous();
  check(all.numel() == numbers(), path_, ": a clip has ", numbers(), " numbers, got ", all.numel());
  check(all.min().item<int64_t>() >= 0 && all.max().item<int64_t>() <= UINT16_MAX, path_,
        ": codes must be in 0..", UINT16_MAX);
  std::vector<char> record(record_bytes());
  const int64_t* from = all.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < numbers(); ++i) {
    const auto number = static_cast<uint16_t>(from[i]);
    std::memcpy(record.data() + 4 + 2 * i, &number, sizeof number);
  }
  const auto sum = static_cast<uint32_t>(
      ::crc32(0, reinterpret_cast<const Bytef*>(record.data() + 4), static_cast<uInt>(record.size() - 4)));
  std::memcpy(record.data(), &sum, sizeof sum);
  size_t done = 0;
  while (done < record.size()) {
    const ssize_t wrote = ::pwrite(file_, record.data() + done, record.size() - done,
                                   clip * record_bytes() + static_cast<int64_t>(done));
    if (wrote < 0 && errno == EINTR) continue;
    check(wrote > 0, path_, ": cannot be written: ", system_error_text(wrote < 0 ? errno : ENOSPC));
    done += static_cast<size_t>(wrote);
  }
}

void TokenCache::sync() {
  check(::fsync(file_) == 0, path_, ": cannot be brought to disk: ", system_error_text(errno));
}

}  // namespace genie::training
