#include "genie/training/token_cache.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint_samples.h"
#include "genie/core/error.h"
#include "temporary_directory.h"

namespace genie::training {
namespace {

using ::genie::testing::read_bytes;
using ::genie::testing::TemporaryDirectory;
using ::genie::testing::write_bytes;
using ::testing::HasSubstr;

const CacheKey kKey = {{"data file", "a.h5"}, {"tokenizer weights", "12ab"}};
constexpr TokenCache::Shape kShape{.clips = 5, .frames = 3, .tokens_per_frame = 4};

at::Tensor tokens_of(int64_t clip) { return (at::arange(12) + 1000 * clip).view({3, 4}); }
at::Tensor actions_of(int64_t clip) { return at::arange(2) + clip; }

void write(TokenCache& cache, int64_t clip) { cache.write(clip, tokens_of(clip), actions_of(clip)); }

std::string error_of(const std::function<void()>& function) {
  try {
    function();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(TokenCache, GivesBackWhatWasWrittenAndKnowsWhatWasNot) {
  const TemporaryDirectory directory;
  EXPECT_EQ(TokenCache::prepare(directory.path(), kKey), "");
  {
    TokenCache cache(directory.path(), kKey, kShape);
    write(cache, 3);
    write(cache, 0);
    cache.sync();
  }
  EXPECT_EQ(TokenCache::prepare(directory.path(), kKey), "");
  const TokenCache cache(directory.path(), kKey, kShape);
  for (const int64_t clip : {0, 3}) {
    const TokenCache::Clip read = cache.read(clip);
    EXPECT_TRUE(at::equal(read.tokens, tokens_of(clip)));
    EXPECT_TRUE(at::equal(read.actions, actions_of(clip)));
  }
  for (const int64_t clip : {1, 2, 4}) {
    EXPECT_FALSE(cache.has(clip));
    EXPECT_THAT(error_of([&] { cache.read(clip); }), HasSubstr("missing or damaged"));
  }
  EXPECT_THAT(error_of([&] { cache.read(5); }), HasSubstr("clip 5 of 5"));
}

TEST(TokenCache, AnyDamagedByteAndAnyCutCostsItsClipAndNoOther) {
  const TemporaryDirectory directory;
  TokenCache::prepare(directory.path(), kKey);
  TokenCache cache(directory.path(), kKey, kShape);
  for (int64_t clip = 0; clip < 3; ++clip) write(cache, clip);
  const std::string path = directory / "tokens.bin", whole = read_bytes(path);
  const size_t record = whole.size() / 3;
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 4);
    write_bytes(path, bytes);
    const TokenCache damaged(directory.path(), kKey, kShape);
    for (size_t clip = 0; clip < 3; ++clip)
      EXPECT_EQ(damaged.has(static_cast<int64_t>(clip)), clip != at / record) << "byte " << at;
    write_bytes(path, whole.substr(0, at));
    const TokenCache cut(directory.path(), kKey, kShape);
    for (size_t clip = 0; clip < 3; ++clip)
      EXPECT_EQ(cut.has(static_cast<int64_t>(clip)), at >= (clip + 1) * record) << "cut at " << at;
  }
}

TEST(TokenCache, AnotherKeyIsNamedAndItsTokensAreNeverRead) {
  const TemporaryDirectory directory;
  TokenCache::prepare(directory.path(), kKey);
  {
    TokenCache cache(directory.path(), kKey, kShape);
    write(cache, 0);
  }
  CacheKey other = kKey;
  other["tokenizer weights"] = "34cd";
  EXPECT_THAT(error_of([&] { const TokenCache cache(directory.path(), other, kShape); }),
              HasSubstr("tokenizer weights"));
  EXPECT_EQ(TokenCache::prepare(directory.path(), other), "tokenizer weights");
  EXPECT_FALSE(TokenCache(directory.path(), other, kShape).has(0));
  write_bytes(directory / "key.json", "{");
  write_bytes(directory / "tokens.bin", "x");
  EXPECT_THAT(TokenCache::prepare(directory.path(), other), HasSubstr("key.json"));
}

TEST(TokenCache, CodesThatDoNotFitAreRefused) {
  const TemporaryDirectory directory;
  TokenCache::prepare(directory.path(), kKey);
  TokenCache cache(directory.path(), kKey, kShape);
  EXPECT_THAT(error_of([&] { cache.write(0, at::full({3, 4}, 65536), actions_of(0)); }), HasSubstr("65535"));
  EXPECT_THAT(error_of([&] { cache.write(0, tokens_of(0), at::arange(3)); }),
              HasSubstr("14 numbers, got 15"));
}

}  // namespace
}  // namespace genie::training
