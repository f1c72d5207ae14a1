#include "genie/data/loader.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include <chrono>
#include <fstream>
#include <set>
#include <thread>

#include "data_fixtures.h"
#include "genie/data/chunk_cache.h"

namespace genie::data {
namespace {

using testing::FileSpec;
using ::testing::HasSubstr;

class LoaderTest : public testing::DataTest {
 protected:
  std::shared_ptr<const ClipDataset> dataset(const FileSpec& spec = {
                                                 .shape = {40, 8, 10, 3},
                                                 .chunk = {4, 8, 10, 3},
                                                 .gzip = true,
                                                 .actions = std::vector<int64_t>(40, 1)}) {
    testing::write_file(file(), spec);
    config::DataConfig config;
    config.num_frames = 4;
    config.height = 8;
    config.width = 10;
    config.random_crop = 0.3;
    config.horizontal_flip = true;
    return std::make_shared<ClipDataset>(std::make_shared<VideoFile>(file()), config, Split::all);
  }
  static void expect_same(const Batch& a, const Batch& b) {
    EXPECT_TRUE(at::equal(a.video, b.video));
    EXPECT_TRUE(at::equal(a.indices, b.indices));
    EXPECT_TRUE(at::equal(a.actions, b.actions));
    EXPECT_EQ(a.first_sample, b.first_sample);
  }
};

TEST_F(LoaderTest, BatchesHaveTheDocumentedShapes) {
  Loader loader(dataset(), {.batch_size = 5});
  const auto batch = loader.next();
  EXPECT_EQ(batch.video.sizes(), (std::vector<int64_t>{5, 4, 8, 10, 3}));
  EXPECT_EQ(batch.video.scalar_type(), at::kByte);
  EXPECT_EQ(batch.actions.sizes(), (std::vector<int64_t>{5, 3}));
  EXPECT_EQ(batch.indices.sizes(), (std::vector<int64_t>{5}));
  EXPECT_EQ(batch.first_sample, 0);
  EXPECT_EQ(loader.next().first_sample, 5);
  EXPECT_EQ(loader.position(), 2);
}

TEST_F(LoaderTest, AFileWithoutActionsGivesNone) {
  EXPECT_FALSE(Loader(dataset({}), {}).next().actions.defined());
}

TEST_F(LoaderTest, TheStreamDoesNotDependOnWorkersOrPrefetch) {
  const auto clips = dataset();
  Loader reference(clips, {.batch_size = 3, .seed = 9, .num_workers = 1, .prefetch = 1});
  Loader parallel(clips, {.batch_size = 3, .seed = 9, .num_workers = 4, .prefetch = 7});
  for (int step = 0; step < 40; ++step) expect_same(reference.next(), parallel.next());
}

TEST_F(LoaderTest, EachEpochShowsEveryClipOnceInAnOrderOfItsOwn) {
  const auto clips = dataset();
  const int64_t size = clips->size();
  Loader loader(clips, {.batch_size = 4, .seed = 1});
  std::vector<int64_t> stream;
  while (static_cast<int64_t>(stream.size()) < 2 * size) {
    const auto indices = loader.next().indices;
    stream.insert(stream.end(), indices.data_ptr<int64_t>(), indices.data_ptr<int64_t>() + 4);
  }
  const std::vector<int64_t> first(stream.begin(), stream.begin() + size);
  const std::vector<int64_t> second(stream.begin() + size, stream.begin() + 2 * size);
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), static_cast<size_t>(size));
  EXPECT_EQ(std::set<int64_t>(second.begin(), second.end()).size(), static_cast<size_t>(size));
  EXPECT_NE(first, second);
}

TEST_F(LoaderTest, ALoaderMadeAtAPositionContinuesTheStream) {
  const auto clips = dataset();
  Loader whole(clips, {.batch_size = 4, .seed = 5});
  for (int step = 0; step < 23; ++step) whole.next();
  Loader resumed(clips, {.batch_size = 4, .seed = 5}, whole.position());
  for (int step = 0; step < 15; ++step) expect_same(resumed.next(), whole.next());
}

TEST_F(LoaderTest, RanksTogetherSeeExactlyTheStreamOfOneProcess) {
  const auto clips = dataset();
  Loader one(clips, {.batch_size = 6, .seed = 2});
  std::vector<std::unique_ptr<Loader>> ranks;
  for (int64_t rank = 0; rank < 3; ++rank) {
    ranks.push_back(std::make_unique<Loader>(
        clips, LoaderOptions{.batch_size = 2, .seed = 2, .rank = rank, .world_size = 3}));
  }
  for (int step = 0; step < 20; ++step) {
    const auto whole = one.next();
    for (int64_t rank = 0; rank < 3; ++rank) {
      const auto part = ranks[rank]->next();
      EXPECT_TRUE(at::equal(part.indices, whole.indices.narrow(0, rank * 2, 2)));
      EXPECT_TRUE(at::equal(part.video, whole.video.narrow(0, rank * 2, 2)));
      EXPECT_EQ(part.first_sample, step * 6 + rank * 2);
    }
  }
}

TEST_F(LoaderTest, WithoutAugmentationTheClipsAreAsRecorded) {
  const auto clips = dataset();
  Loader plain(clips, {.batch_size = 2, .augment = false});
  for (int step = 0; step < 5; ++step) {
    const auto batch = plain.next();
    for (int64_t i = 0; i < 2; ++i) {
      EXPECT_TRUE(at::equal(batch.video[i], clips->get(batch.indices[i].item<int64_t>()).video));
    }
  }
}

TEST_F(LoaderTest, AWorkersErrorIsThrownByNextAndAgain) {
  const FileSpec spec{.shape = {40, 8, 10, 3}, .chunk = {4, 8, 10, 3}, .gzip = true};
  testing::write_file(file(), spec);
  for (hsize_t n = 0; n < 10; ++n) {
    const auto chunk = testing::find_chunk(file(), n);
    testing::damage(file(), chunk.address + 2, std::vector<uint8_t>(chunk.size - 2, 0xff));
  }
  config::DataConfig config;
  config.num_frames = 4;
  Loader loader(std::make_shared<ClipDataset>(std::make_shared<VideoFile>(file()), config, Split::all), {});
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(testing::error_of([&] { loader.next(); }), HasSubstr("gzip data is damaged"));
  }
  EXPECT_EQ(loader.position(), 0);
}

TEST_F(LoaderTest, DestructionNeverHangs) {
  const auto clips = dataset();
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 30; ++i) {
    Loader loader(clips, {.batch_size = 2, .num_workers = 3, .prefetch = 2});
    if (i % 3 == 0) loader.next();
    if (i % 3 == 1) std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
  EXPECT_LE(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 20);
}

TEST_F(LoaderTest, WorkersLeaveTorchsThreadCountAlone) {
  const int before = at::get_num_threads();
  Loader loader(dataset(), {.num_workers = 3});
  loader.next();
  EXPECT_EQ(at::get_num_threads(), before);
}

TEST_F(LoaderTest, WrongOptionsAreRefused) {
  const auto clips = dataset();
  EXPECT_THAT(testing::error_of([&] { Loader(clips, {.batch_size = 0}); }), HasSubstr("batch_size"));
  EXPECT_THAT(testing::error_of([&] { Loader(clips, {.rank = 2, .world_size = 2}); }),
              HasSubstr("found 2 of 2"));
}

int64_t resident_bytes() {
  std::ifstream stream("/proc/self/statm");
  int64_t size = 0, resident = 0;
  stream >> size >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

TEST_F(LoaderTest, MemoryStaysBoundedOnAFileManyTimesLarger) {
  // 600 MB of frames from one compressed chunk, written again and again.
  constexpr hsize_t chunks = 800, frames = 16, side = 128;
  const hsize_t size[4] = {chunks * frames, side, side, 3}, chunk[4] = {frames, side, side, 3};
  const hid_t id = H5Fcreate(file().c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(4, size, nullptr);
  const unsigned values[3] = {4, 0x0105, frames * side * side * 3};
  H5Pset_chunk(properties, 4, chunk);
  H5Pset_filter(properties, 32000, H5Z_FLAG_OPTIONAL, 3, values);
  const hid_t data = H5Dcreate2(id, "frames", H5T_STD_U8LE, space, H5P_DEFAULT, properties, H5P_DEFAULT);
  const std::vector<uint8_t> plain(frames * side * side * 3, 77);
  std::vector<uint8_t> packed(plain.size());
  const unsigned length = lzf_compress(plain.data(), plain.size(), packed.data(), packed.size());
  for (hsize_t n = 0; n < chunks; ++n) {
    const hsize_t offset[4] = {n * frames, 0, 0, 0};
    H5Dwrite_chunk(data, H5P_DEFAULT, 0, offset, length, packed.data());
  }
  H5Dclose(data);
  H5Sclose(space);
  H5Pclose(properties);
  H5Fclose(id);

  config::DataConfig config;
  config.num_frames = 8;
  config.height = config.width = side;
  const auto video = std::make_shared<VideoFile>(file());
  const int64_t before = resident_bytes();
  Loader loader(std::make_shared<ClipDataset>(video, config, Split::all), {.batch_size = 4, .prefetch = 2});
  for (int step = 0; step < 120; ++step) EXPECT_EQ(loader.next().video.min().item<int>(), 77);
  EXPECT_LE(video->cached_bytes(), size_t{64} << 20);
  EXPECT_GE(video->cached_bytes(), size_t{32} << 20);
  EXPECT_LE(resident_bytes() - before, int64_t{200} << 20);
}

TEST(ChunkCacheTest, DropsTheLeastRecentlyUsedAndWhatIsTooLarge) {
  ChunkCache cache(100);
  const auto bytes = [](size_t size) { return std::make_shared<const std::vector<uint8_t>>(size); };
  cache.insert(1, bytes(40));
  cache.insert(2, bytes(40));
  EXPECT_NE(cache.find(1), nullptr);
  cache.insert(3, bytes(40));
  EXPECT_EQ(cache.find(2), nullptr);
  EXPECT_NE(cache.find(1), nullptr);
  EXPECT_NE(cache.find(3), nullptr);
  cache.insert(4, bytes(101));
  EXPECT_EQ(cache.find(4), nullptr);
  EXPECT_EQ(cache.bytes(), 80u);
}

}  // namespace
}  // namespace genie::data
