#include <gmock/gmock.h>

#include "data_fixtures.h"
#include "genie/data/synthetic_world.h"
#include "genie/data/video_file.h"
#include "genie/data/video_writer.h"

namespace genie::data {
namespace {

using ::testing::HasSubstr;

class VideoWriterTest : public testing::DataTest {};

TEST_F(VideoWriterTest, WhatIsWrittenIsReadBack) {
  const auto frames = testing::expected_frames({.shape = {50, 8, 10, 3}});
  const auto actions = at::arange(50, at::kInt).remainder(6);
  VideoWriter writer(file(), 8, 10, {.fps = 7.5, .env = "toy", .num_actions = 6});
  writer.append(frames.narrow(0, 0, 3), actions.narrow(0, 0, 3));
  writer.end_episode();
  writer.end_episode();  // adds none
  writer.append(frames.narrow(0, 3, 40), actions.narrow(0, 3, 40).to(at::kLong));
  writer.append(frames.narrow(0, 43, 7), actions.narrow(0, 43, 7).to(at::kByte));
  EXPECT_EQ(writer.num_frames(), 50);
  writer.close();
  writer.close();

  const VideoFile video(file());
  EXPECT_TRUE(at::equal(video.read_frames(0, 50), frames));
  EXPECT_TRUE(at::equal(video.actions(), actions.to(at::kLong)));
  EXPECT_EQ(video.episode_ends(), (std::vector<int64_t>{3, 50}));
  EXPECT_EQ(video.fps(), 7.5);
  EXPECT_EQ(video.env(), "toy");
  EXPECT_EQ(video.num_actions(), 6);
}

TEST_F(VideoWriterTest, NoFileAppearsBeforeCloseAndNoneIsLeftWithout) {
  {
    VideoWriter writer(file(), 8, 10);
    writer.append(testing::expected_frames({}));
    EXPECT_FALSE(std::filesystem::exists(file()));
    EXPECT_TRUE(std::filesystem::exists(file() + ".partial"));
  }
  EXPECT_FALSE(std::filesystem::exists(file()));
  EXPECT_FALSE(std::filesystem::exists(file() + ".partial"));
}

TEST_F(VideoWriterTest, WrongInputIsRefused) {
  VideoWriter writer(file(), 8, 10, {.num_actions = 4});
  const auto frames = testing::expected_frames({});
  EXPECT_THAT(testing::error_of([&] { writer.close(); }), HasSubstr("no frame"));
  EXPECT_THAT(testing::error_of([&] { writer.append(frames.to(at::kFloat)); }),
              HasSubstr("uint8 (n,8,10,3), found Float"));
  EXPECT_THAT(testing::error_of([&] { writer.append(frames.slice(1, 1)); }), HasSubstr("uint8 (n,8,10,3)"));
  EXPECT_THAT(testing::error_of([&] { writer.append(frames, at::full({20}, 4, at::kLong)); }),
              HasSubstr("0..3, found 4"));
  EXPECT_THAT(testing::error_of([&] { writer.append(frames, at::zeros({20})); }),
              HasSubstr("must be integers (20)"));
  EXPECT_THAT(testing::error_of([&] { writer.append(frames, at::zeros({19}, at::kLong)); }),
              HasSubstr("found Long [19]"));
  writer.append(frames);
  EXPECT_THAT(testing::error_of([&] { writer.append(frames, at::zeros({20}, at::kLong)); }),
              HasSubstr("in every append or in none"));
  writer.close();
  EXPECT_THAT(testing::error_of([&] { writer.append(frames); }), HasSubstr("is closed"));
  EXPECT_EQ(VideoFile(file()).num_frames(), 20);
  EXPECT_THAT(testing::error_of([&] { VideoWriter other(file("no/where.h5"), 8, 8); }),
              HasSubstr("make it first"));
  EXPECT_THAT(testing::error_of([&] { VideoWriter other(file(), 0, 8); }), HasSubstr("found 0 and 8"));
}

TEST_F(VideoWriterTest, TheSyntheticWorldRepeatsWithItsSeed) {
  write_synthetic_world(file("a.h5"), 100, 32, 48, 40, 3);
  write_synthetic_world(file("b.h5"), 100, 32, 48, 40, 3);
  write_synthetic_world(file("c.h5"), 100, 32, 48, 40, 4);
  const VideoFile a(file("a.h5")), b(file("b.h5")), c(file("c.h5"));
  EXPECT_EQ(a.episode_ends(), (std::vector<int64_t>{40, 80, 100}));
  EXPECT_EQ(a.num_actions(), 5);
  EXPECT_TRUE(at::equal(a.read_frames(0, 100), b.read_frames(0, 100)));
  EXPECT_TRUE(at::equal(a.actions(), b.actions()));
  EXPECT_FALSE(at::equal(a.read_frames(0, 100), c.read_frames(0, 100)));
}

/// The sprite's horizontal place: the mean column of the pixels that change between this frame and the
/// others.
double sprite_column(const at::Tensor& frame, const at::Tensor& background) {
  const auto differs = frame.ne(background).any(-1).to(at::kDouble);
  const auto columns = at::arange(frame.size(1), at::kDouble);
  return ((differs * columns).sum() / differs.sum()).item<double>();
}

TEST_F(VideoWriterTest, TheSyntheticWorldsActionsMoveTheSpriteTheirWay) {
  write_synthetic_world(file(), 2000, 64, 64, 100, 1);
  const VideoFile video(file());
  const auto actions = video.actions();
  double moved[5] = {};
  int64_t begin = 0;
  for (const int64_t end : video.episode_ends()) {
    const auto frames = video.read_frames(begin, end - begin);
    const auto background = std::get<0>(frames.median(0));  // the sprite is nowhere most of the time
    double before = sprite_column(frames[0], background);
    for (int64_t t = 0; t + 1 < end - begin; ++t) {
      const double after = sprite_column(frames[t + 1], background);
      if (std::isfinite(after - before)) moved[actions[begin + t].item<int64_t>()] += after - before;
      before = after;
    }
    begin = end;
  }
  EXPECT_LE(moved[1], -200);
  EXPECT_GE(moved[2], 200);
  for (const int still : {0, 3, 4}) EXPECT_LE(std::abs(moved[still]), 100) << "action " << still;
}

}  // namespace
}  // namespace genie::data
