#include "genie/data/video_file.h"

#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <thread>

#include "data_fixtures.h"

namespace genie::data {
namespace {

using ::testing::AllOf;
using testing::FileSpec;
using ::testing::HasSubstr;

class VideoFileTest : public testing::DataTest {
 protected:
  void expect_reads_back(const FileSpec& spec) {
    testing::write_file(file(), spec);
    const VideoFile video(file());
    const auto expected = testing::expected_frames(spec);
    EXPECT_TRUE(at::equal(video.read_frames(0, video.num_frames()), expected));
    EXPECT_TRUE(at::equal(video.read_frames(3, 5, 3), expected.slice(0, 3, 16, 3)));
    EXPECT_TRUE(at::equal(video.read_frames(video.num_frames() - 1, 1), expected.slice(0, -1)));
  }
  /// The message a file of that content is refused with.
  std::string error_for(const FileSpec& spec) {
    testing::write_file(file(), spec);
    return testing::error_of([&] { VideoFile video(file()); });
  }
  std::string open_error(const std::string& path) {
    return testing::error_of([&] { VideoFile video(path); });
  }
};

TEST_F(VideoFileTest, ReadsEveryLayoutExactly) {
  expect_reads_back({});  // contiguous
  expect_reads_back({.chunk = {4, 8, 10, 3}});
  expect_reads_back({.chunk = {16, 8, 10, 3}, .gzip = true});  // a last chunk that is not full
  expect_reads_back({.chunk = {4, 8, 10, 3}, .gzip = true, .shuffle = true});
  expect_reads_back({.chunk = {7, 3, 4, 2}, .gzip = true});  // tiles, also of the channels
  expect_reads_back({.chunk = {7, 3, 4, 1}, .gzip = true});
  expect_reads_back({.chunk = {6, 8, 10, 3}, .lzf = true});
  expect_reads_back({.chunk = {6, 8, 10, 3}, .gzip = true, .fletcher = true});  // through the library
}

TEST_F(VideoFileTest, ReadsLzfChunksThatWereStoredPlain) {
  FileSpec spec{.shape = {4, 1, 1, 3}, .chunk = {1, 1, 1, 3}, .lzf = true};
  testing::write_file(file(), spec);
  EXPECT_EQ(testing::find_chunk(file(), 0).size, 3);
  EXPECT_TRUE(at::equal(VideoFile(file()).read_frames(0, 4), testing::expected_frames(spec)));
}

TEST_F(VideoFileTest, ChunksNeverWrittenHoldTheFillValue) {
  const hid_t id = H5Fcreate(file().c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t size[4] = {10, 4, 4, 3}, chunk[4] = {4, 4, 4, 3};
  const uint8_t fill = 9;
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(4, size, nullptr);
  H5Pset_chunk(properties, 4, chunk);
  H5Pset_fill_value(properties, H5T_NATIVE_UINT8, &fill);
  H5Dclose(H5Dcreate2(id, "frames", H5T_STD_U8LE, space, H5P_DEFAULT, properties, H5P_DEFAULT));
  H5Sclose(space);
  H5Pclose(properties);
  H5Fclose(id);
  EXPECT_TRUE(VideoFile(file()).read_frames(0, 10).eq(9).all().item<bool>());
}

TEST_F(VideoFileTest, ReadsAttributesAndActions) {
  FileSpec spec{.episode_ends = {{5, 20}}, .actions = std::vector<int64_t>(20, 2), .fps = 12.5, .env = "toy"};
  for (const bool variable : {false, true}) {
    spec.variable_env = variable;
    testing::write_file(file(), spec);
    const VideoFile video(file());
    EXPECT_EQ(video.fps(), 12.5);
    EXPECT_EQ(video.env(), "toy");
    EXPECT_EQ(video.episode_ends(), (std::vector<int64_t>{5, 20}));
    EXPECT_EQ(video.num_actions(), 3);
    EXPECT_TRUE(video.actions().eq(2).all().item<bool>());
    EXPECT_EQ(video.actions().scalar_type(), at::kLong);
  }
}

TEST_F(VideoFileTest, AFileOfFramesAloneIsOneEpisodeWithoutActions) {
  testing::write_file(file(), {});
  const VideoFile video(file());
  EXPECT_EQ(video.episode_ends(), std::vector<int64_t>{20});
  EXPECT_FALSE(video.has_actions());
  EXPECT_FALSE(video.actions().defined());
  EXPECT_EQ(video.num_actions(), 0);
  EXPECT_EQ(video.fps(), 0);
}

TEST_F(VideoFileTest, ThreadsReadTheSameAsOneAlone) {
  const FileSpec spec{.shape = {64, 8, 10, 3}, .chunk = {4, 8, 10, 3}, .gzip = true};
  testing::write_file(file(), spec);
  const VideoFile video(file());
  const auto expected = testing::expected_frames(spec);
  std::atomic<int> wrong = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 50; ++i) {
          const int64_t begin = (i * 7 + t * 13) % 56;
          wrong += !at::equal(video.read_frames(begin, 8), expected.narrow(0, begin, 8));
        }
      });
    }
  }
  EXPECT_EQ(wrong, 0);
}

TEST_F(VideoFileTest, ReadingOutsideTheFileIsRefused) {
  testing::write_file(file(), {});
  const VideoFile video(file());
  constexpr int64_t huge = std::numeric_limits<int64_t>::max();
  const std::vector<std::array<int64_t, 3>> wrong{{-1, 1, 1}, {0, 0, 1},  {0, 1, 0},       {0, 21, 1},
                                                  {20, 1, 1}, {0, 11, 2}, {1, huge, huge}, {1, 2, huge}};
  for (const auto& [begin, count, stride] : wrong) {
    EXPECT_THAT(testing::error_of([&, b = begin, c = count, s = stride] { video.read_frames(b, c, s); }),
                HasSubstr("outside the 20 frames"));
  }
}

TEST_F(VideoFileTest, WhatIsNoHdf5FileIsSaidSo) {
  EXPECT_THAT(open_error(file("missing.h5")), HasSubstr("does not exist"));
  EXPECT_THAT(open_error(std::filesystem::path(file()).parent_path().string()), HasSubstr("is a directory"));
  std::ofstream(file("text.h5")) << "not a video";
  EXPECT_THAT(open_error(file("text.h5")), AllOf(HasSubstr("text.h5"), HasSubstr("is not an HDF5 file")));
  std::ofstream(file("empty.h5")).flush();
  EXPECT_THAT(open_error(file("empty.h5")), HasSubstr("is not an HDF5 file"));
}

TEST_F(VideoFileTest, WrongFramesAreRefusedWithWhatWasFound) {
  EXPECT_THAT(error_for({.name = "images"}), AllOf(HasSubstr("no dataset 'frames'"), HasSubstr("'images'")));
  EXPECT_THAT(error_for({.type = H5T_IEEE_F32LE}),
              AllOf(HasSubstr("found float32 (20,8,10,3)"), HasSubstr("0..255")));
  EXPECT_THAT(error_for({.type = H5T_STD_I8LE}), HasSubstr("found int8"));
  EXPECT_THAT(error_for({.shape = {20, 3, 8, 10}}), HasSubstr("move the channels to the end"));
  EXPECT_THAT(error_for({.shape = {20, 8, 10, 1}}), HasSubstr("found uint8 (20,8,10,1)"));
  EXPECT_THAT(error_for({.shape = {2, 10, 8, 10, 3}}), HasSubstr("join the episodes"));
  EXPECT_THAT(error_for({.shape = {20, 8, 10}}), HasSubstr("found uint8 (20,8,10)"));
  EXPECT_THAT(error_for({.shape = {0, 8, 10, 3}}), HasSubstr("nothing to read"));
}

TEST_F(VideoFileTest, AGroupNamedFramesIsRefused) {
  const hid_t id = H5Fcreate(file().c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  H5Gclose(H5Gcreate2(id, "frames", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  H5Fclose(id);
  EXPECT_THAT(open_error(file()), HasSubstr("it is a group"));
}

TEST_F(VideoFileTest, WrongAttributesAreRefused) {
  EXPECT_THAT(error_for({.fps = std::nan("")}), AllOf(HasSubstr("'fps'"), HasSubstr("found nan")));
  EXPECT_THAT(error_for({.fps = 0.0}), HasSubstr("above 0"));
  EXPECT_THAT(error_for({.fps = -15.0}), HasSubstr("found -15"));
  EXPECT_THAT(error_for({.num_actions = 2.5}), HasSubstr("whole number"));
  EXPECT_THAT(error_for({.num_actions = 0.0}), HasSubstr("found 0"));
  testing::write_file(file(), {});
  const hid_t id = H5Fopen(file().c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  const int64_t number = 3;
  testing::write_attribute(id, "env", H5T_NATIVE_INT64, &number);
  H5Fclose(id);
  EXPECT_THAT(open_error(file()), AllOf(HasSubstr("'env'"), HasSubstr("must be a string, found int64")));
}

TEST_F(VideoFileTest, WrongEpisodeEndsAreRefused) {
  EXPECT_THAT(error_for({.episode_ends = {{10, 5, 20}}}), HasSubstr("found 5 after 10 at entry 1"));
  EXPECT_THAT(error_for({.episode_ends = {{10, 10, 20}}}), HasSubstr("strictly"));
  EXPECT_THAT(error_for({.episode_ends = {{0, 20}}}), HasSubstr("found 0 after 0"));
  EXPECT_THAT(error_for({.episode_ends = {{10, 25}}}), HasSubstr("only 20 frames"));
  EXPECT_THAT(error_for({.episode_ends = {{10, 15}}}),
              HasSubstr("must end with the number of frames, 20, found 15"));
  EXPECT_THAT(error_for({.episode_ends = std::vector<int64_t>{}}), HasSubstr("is empty"));
  EXPECT_THAT(error_for({.episode_ends = {{20}}, .ends_type = H5T_IEEE_F64LE}),
              HasSubstr("found float64 (1)"));
}

TEST_F(VideoFileTest, WrongActionsAreRefused) {
  const std::vector<int64_t> good(20, 1);
  EXPECT_THAT(error_for({.actions = std::vector<int64_t>(19, 1)}), HasSubstr("20, found 19"));
  EXPECT_THAT(error_for({.actions = good, .actions_type = H5T_IEEE_F32LE}), HasSubstr("found float32 (20)"));
  auto bad = good;
  bad[7] = -1;
  EXPECT_THAT(error_for({.actions = bad}), HasSubstr("found -1 at entry 7"));
  bad[7] = 40000;
  EXPECT_THAT(error_for({.actions = bad}), HasSubstr("0..32767, found 40000"));
  bad[7] = 5;
  EXPECT_THAT(error_for({.actions = bad, .num_actions = 5.0}),
              HasSubstr("0..4 (attribute num_actions), found 5"));
}

TEST_F(VideoFileTest, ATruncatedFileIsRefusedWhenItIsOpened) {
  testing::write_file(file(), {.chunk = {4, 8, 10, 3}, .gzip = true});
  std::filesystem::resize_file(file(), std::filesystem::file_size(file()) * 6 / 10);
  EXPECT_THAT(open_error(file()), HasSubstr("is truncated"));
}

TEST_F(VideoFileTest, DamagedChunksAreErrorsOfTheReadThatMeetsThem) {
  for (const bool lzf : {false, true}) {
    const FileSpec spec{.chunk = {4, 8, 10, 3}, .gzip = !lzf, .lzf = lzf};
    testing::write_file(file(), spec);
    const auto chunk = testing::find_chunk(file(), 1);
    ASSERT_GT(chunk.size, 40);
    testing::damage(file(), chunk.address + 2, std::vector<uint8_t>(chunk.size - 2, 0xff));
    const VideoFile video(file());
    EXPECT_TRUE(at::equal(video.read_frames(0, 4), testing::expected_frames(spec).slice(0, 0, 4)));
    EXPECT_THAT(
        testing::error_of([&] { video.read_frames(0, 8); }),
        AllOf(HasSubstr("at frame 4"), HasSubstr(lzf ? "LZF data is damaged" : "gzip data is damaged")));
  }
}

TEST_F(VideoFileTest, RandomDamageInsideChunksNeverCrashes) {
  constexpr uint64_t seed = 7;
  SCOPED_TRACE(concat("seed ", seed));
  for (const bool lzf : {false, true}) {
    const FileSpec spec{.chunk = {4, 8, 10, 3}, .gzip = !lzf, .lzf = lzf};
    int refused = 0;
    for (uint64_t trial = 0; trial < 60; ++trial) {
      testing::write_file(file(), spec);
      const auto chunk = testing::find_chunk(file(), trial % 5);
      for (uint64_t k = 0; k < 4; ++k) {
        const uint64_t draw = mix_seed(seed, trial, k);
        testing::damage(file(), chunk.address + static_cast<int64_t>(draw % chunk.size),
                        {uint8_t(draw >> 32)});
      }
      const VideoFile video(file());
      refused += testing::error_of([&] { video.read_frames(0, 20); }) != "no error";
    }
    EXPECT_GT(refused, 0);
  }
}

TEST_F(VideoFileTest, AFileOpenForWritingElsewhereIsSaidSo) {
  testing::write_file(file(), {});
  const int descriptor = ::open(file().c_str(), O_RDWR);
  ASSERT_EQ(::flock(descriptor, LOCK_EX | LOCK_NB), 0);
  EXPECT_THAT(open_error(file()), HasSubstr("open for writing by another process"));
  ::close(descriptor);
  EXPECT_EQ(open_error(file()), "no error");
}

TEST_F(VideoFileTest, AFormatOfANewerHdf5IsSaidSo) {
  testing::write_file(file(), {});
  testing::damage(file(), 8, {9});  // the superblock's version
  EXPECT_THAT(open_error(file()), AllOf(HasSubstr("libver"), HasSubstr("version")));
}

TEST_F(VideoFileTest, AnUnknownCompressionIsNamed) {
  const hid_t id = H5Fcreate(file().c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t size[4] = {4, 4, 4, 3};
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(4, size, nullptr);
  H5Pset_chunk(properties, 4, size);
  H5Pset_filter(properties, 32015, H5Z_FLAG_OPTIONAL, 0, nullptr);
  H5Dclose(H5Dcreate2(id, "frames", H5T_STD_U8LE, space, H5P_DEFAULT, properties, H5P_DEFAULT));
  H5Sclose(space);
  H5Pclose(properties);
  H5Fclose(id);
  EXPECT_THAT(open_error(file()), AllOf(HasSubstr("filter 32015"), HasSubstr("gzip or lzf")));
}

TEST_F(VideoFileTest, ErrorsPrintNothing) {
  ::testing::internal::CaptureStderr();
  error_for({.name = "images"});
  testing::damage(file(), 8, {9});
  open_error(file());
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace genie::data
