#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <random>

#include "checkpoint_samples.h"
#include "temporary_directory.h"

#if defined(__SANITIZE_ADDRESS__)
#include <atomic>

// Of sanitizer/allocator_interface.h, which g++ does not install everywhere.
extern "C" {
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, size_t),
                                              void (*on_free)(const volatile void*));
size_t __sanitizer_get_allocated_size(const volatile void* memory);
}
#endif

namespace genie::training {
namespace {

using ::genie::testing::read_bytes;
using ::genie::testing::same;
using ::genie::testing::sample_checkpoint;
using ::genie::testing::TemporaryDirectory;
using ::genie::testing::write_bytes;

constexpr size_t kMaxMemory = size_t{64} << 20;

// While it lives, taking more than kMaxMemory besides what is in use fails the test: with std::bad_alloc or
// c10::Error, neither of which is a genie::Error; under AddressSanitizer by counting.
#if defined(__SANITIZE_ADDRESS__)
std::atomic<int64_t> live{0}, peak{0};
void count_malloc(const volatile void*, size_t size) {
  const int64_t now = live += static_cast<int64_t>(size);
  for (int64_t seen = peak; now > seen && !peak.compare_exchange_weak(seen, now);) {
  }
}
void count_free(const volatile void* memory) {
  if (memory) live -= static_cast<int64_t>(__sanitizer_get_allocated_size(memory));
}
class MemoryLimit {
 public:
  MemoryLimit() {
    static const int installed = __sanitizer_install_malloc_and_free_hooks(count_malloc, count_free);
    EXPECT_GT(installed, 0);
    live = peak = 0;
  }
  ~MemoryLimit() {
    std::cout << "at most " << peak / 1024 << " KiB taken" << std::endl;
    EXPECT_GT(peak.load(), 0);
    EXPECT_LE(peak.load(), static_cast<int64_t>(kMaxMemory));
  }
};
#else
class MemoryLimit {
 public:
  MemoryLimit() {
    long pages = 0;
    if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
      EXPECT_EQ(std::fscanf(file, "%ld", &pages), 1);
      std::fclose(file);
    }
    ::getrlimit(RLIMIT_AS, &before_);
    const rlimit limit = {static_cast<rlim_t>(pages) * ::sysconf(_SC_PAGESIZE) + kMaxMemory,
                          before_.rlim_max};
    EXPECT_EQ(::setrlimit(RLIMIT_AS, &limit), 0);
  }
  ~MemoryLimit() { ::setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_{};
};
#endif

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  size_t below(size_t bound) { return std::uniform_int_distribution<size_t>(0, bound - 1)(random_); }

  std::string operator()(std::string bytes) {
    for (size_t count = 1 + below(3); count > 0; --count) mutate(bytes);
    return bytes;
  }

 private:
  void mutate(std::string& bytes) {
    if (bytes.empty()) bytes = "x";
    const size_t at = below(bytes.size());
    const size_t part = std::min(bytes.size() - at, 1 + below(64));
    switch (below(11)) {
      case 0:
        bytes[at] ^= static_cast<char>(1 << below(8));
        break;
      case 1:
        bytes[at] = static_cast<char>(below(256));
        break;
      case 2:
        bytes.resize(at);
        break;
      case 3:
        bytes.erase(at, part);
        break;
      case 4:
        bytes.insert(at, bytes.substr(below(bytes.size()), 1 + below(64)));
        break;
      case 5:
        bytes.insert(at, std::string(1 + below(200000), "[{\"\0 9"[below(6)]));
        break;
      case 6:
        bytes += std::string(1 + below(100), static_cast<char>(below(256)));
        break;
      case 7: {  // the size of a header
        const uint64_t sizes[] = {0, 1, 7, uint64_t{1} << 22, uint64_t{1} << 40, UINT64_MAX, UINT64_MAX - 7};
        if (bytes.size() >= 8) std::memcpy(bytes.data(), &sizes[below(7)], 8);
        break;
      }
      case 8:
      case 9: {  // a number or word in the JSON
        const size_t digit = bytes.find_first_of("0123456789", at);
        const char* words[] = {"-1",
                               "18446744073709551615",
                               "9223372036854775807",
                               "1e400",
                               "4294967296",
                               "null",
                               "\"\"",
                               "{}",
                               "[]",
                               "99999999999999999999999"};
        if (digit != std::string::npos) bytes.replace(digit, 1 + below(2), words[below(10)]);
        break;
      }
      default: {
        const size_t quote = bytes.find('"', at);
        if (quote != std::string::npos) bytes.replace(quote, 1 + below(8), "\"F16\"");
      }
    }
  }

  std::mt19937_64 random_;
};

enum class Outcome { refused, equal, other };

// Whatever else than genie::Error is thrown ends the test.
template <class Load, class Equal>
Outcome outcome_of(const Load& load, const Equal& equal) {
  try {
    return equal(load()) ? Outcome::equal : Outcome::other;
  } catch (const Error& error) {
    EXPECT_STRNE(error.what(), "");
    return Outcome::refused;
  }
}

TEST(DamagedFiles, AMutatedCheckpointLoadsEqualOrIsRefused) {
  const uint64_t seed = 5;
  std::cout << "seed " << seed << std::endl;
  Mutator mutate(seed);
  const TemporaryDirectory directory;
  const std::string path = directory / "step_00000005";
  const CheckpointData written = sample_checkpoint(5);
  save_checkpoint(path, written);
  const std::vector<std::string> names = {"model.safetensors", "optimizer.safetensors", "state.json",
                                          "config.yaml", "manifest.json"};
  int refused = 0;
  const MemoryLimit limit;
  for (int i = 0; i < 600; ++i) {
    const std::string file = path + "/" + names[mutate.below(names.size())];
    const std::string bytes = read_bytes(file);
    write_bytes(file, mutate(bytes));
    const Outcome outcome = outcome_of([&] { return load_checkpoint(path); },
                                       [&](const CheckpointData& data) { return same(data, written); });
    EXPECT_NE(outcome, Outcome::other) << "mutation " << i << " of " << file;
    refused += outcome == Outcome::refused;
    write_bytes(file, bytes);
  }
  std::cout << refused << " of 600 refused" << std::endl;
  EXPECT_GT(refused, 500);
  EXPECT_TRUE(same(load_checkpoint(path), written));
}

// Without a checksum changed numbers load as they are; what loads must be sound, and all else refused.
TEST(DamagedFiles, AMutatedSafetensorsFileLoadsSoundOrIsRefused) {
  const uint64_t seed = 6;
  std::cout << "seed " << seed << std::endl;
  Mutator mutate(seed);
  const TemporaryDirectory directory;
  TensorMap tensors = sample_checkpoint(5).model;
  tensors["mask"] = at::ones({5}, at::kBool);
  tensors["empty"] = at::empty({0, 4}, at::kLong);
  save_safetensors(directory / "a", tensors, {{"format", "pt"}});
  const std::string bytes = read_bytes(directory / "a");
  int refused = 0;
  const MemoryLimit limit;
  for (int i = 0; i < 1000; ++i) {
    write_bytes(directory / "b", mutate(bytes));
    const auto touch_all = [](const TensorMap& read) {
      for (const auto& [name, tensor] : read) tensor.to(at::kDouble).sum();
      return true;
    };
    refused += outcome_of([&] { return load_safetensors(directory / "b"); }, touch_all) == Outcome::refused;
  }
  std::cout << refused << " of 1000 refused" << std::endl;
  EXPECT_GT(refused, 500);
}

TEST(DamagedFiles, AMutatedStateParsesOrIsRefused) {
  const uint64_t seed = 7;
  std::cout << "seed " << seed << std::endl;
  Mutator mutate(seed);
  const std::string good = to_json(sample_checkpoint(5).state);
  int refused = 0;
  const MemoryLimit limit;
  for (int i = 0; i < 1000; ++i) {
    const std::string text = mutate(good);
    refused += outcome_of([&] { return parse_train_state(text, "state.json"); },
                          [](const TrainState& state) { return state.step >= 0; }) == Outcome::refused;
  }
  std::cout << refused << " of 1000 refused" << std::endl;
  EXPECT_GT(refused, 500);
}

// Headers of the largest size that is read at all, filled with what costs a parser most.
TEST(DamagedFiles, BombsInTheLargestHeaderStayWithinTheMemoryLimit) {
  const TemporaryDirectory directory;
  const auto repeat = [](const std::string& part) {
    std::string text;
    while (text.size() + part.size() < kMaxSafetensorsHeader - 64) text += part;
    return text;
  };
  const auto numbered = [](const char* format) {
    std::string text;
    char entry[96];
    for (int i = 0; text.size() + sizeof entry < kMaxSafetensorsHeader - 64; ++i) {
      std::snprintf(entry, sizeof entry, format, i);
      text += entry;
    }
    return text;
  };
  const std::string one = "{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
  const std::string headers[] = {
      repeat("["),
      "{\"x\":{\"shape\":[" + repeat("1,"),
      "{\"" + repeat("a") + "\":" + one,
      "{\"a" + repeat(" ") + "\x7f",
      repeat("\n") + "x",
      repeat("9"),
      "{\"__metadata__\":{" + numbered("\"%x\":\"\","),
      "{" + numbered("\"%x\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},")};
  for (const std::string& header : headers) {
    const uint64_t size = header.size();
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &size, 8);
    write_bytes(directory / "a", bytes + header);
    bytes = {};
    const MemoryLimit limit;
    EXPECT_THROW(load_safetensors(directory / "a"), Error);
  }
}

}  // namespace
}  // namespace genie::training
