#include "genie/data/clip_dataset.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "data_fixtures.h"
#include "genie/data/synthetic_world.h"
#include "genie/data/transforms.h"

namespace genie::data {
namespace {

using ::testing::AllOf;
using testing::FileSpec;
using ::testing::HasSubstr;

class ClipDatasetTest : public testing::DataTest {
 protected:
  config::DataConfig config() const {
    config::DataConfig config;
    config.num_frames = 4;
    config.height = 8;
    config.width = 10;
    return config;
  }
  std::shared_ptr<const VideoFile> make(const FileSpec& spec) {
    testing::write_file(file(), spec);
    return std::make_shared<VideoFile>(file());
  }
  /// `count` episodes of 10 frames.
  std::shared_ptr<const VideoFile> episodes(int64_t count) {
    FileSpec spec{.shape = {static_cast<hsize_t>(10 * count), 8, 10, 3}};
    spec.episode_ends.emplace();
    for (int64_t i = 1; i <= count; ++i) spec.episode_ends->push_back(10 * i);
    return make(spec);
  }
  static std::set<int64_t> frames_of(const ClipDataset& dataset, int64_t num_frames) {
    std::set<int64_t> frames;
    for (int64_t i = 0; i < dataset.size(); ++i) {
      for (int64_t t = 0; t < num_frames; ++t) frames.insert(dataset.first_frame(i) + t * dataset.stride());
    }
    return frames;
  }
  static std::string error_of(const std::shared_ptr<const VideoFile>& video, const config::DataConfig& config,
                              Split split = Split::all) {
    return testing::error_of([&] { ClipDataset dataset(video, config, split); });
  }
};

TEST_F(ClipDatasetTest, AClipStartsAtEveryFrameAndNeverCrossesAnEpisodesEnd) {
  const auto video = make({.episode_ends = {{3, 9, 20}}});
  const ClipDataset dataset(video, config(), Split::all);
  std::vector<int64_t> starts;
  for (int64_t i = 0; i < dataset.size(); ++i) starts.push_back(dataset.first_frame(i));
  EXPECT_EQ(starts, (std::vector<int64_t>{3, 4, 5, 9, 10, 11, 12, 13, 14, 15, 16}));
  EXPECT_EQ(dataset.filter_report().kept, 11);
}

TEST_F(ClipDatasetTest, StrideTakesFramesApartAndTheActionThatLedToTheNext) {
  std::vector<int64_t> actions(20);
  for (int64_t t = 0; t < 20; ++t) actions[t] = t;
  const auto video = make({.episode_ends = {{7, 20}}, .actions = actions});
  auto strided = config();
  strided.stride = 3;
  const ClipDataset dataset(video, strided, Split::all);
  EXPECT_EQ(dataset.size(), 4);  // none in the 7 frames of the first episode
  const auto clip = dataset.get(1);
  EXPECT_EQ(dataset.first_frame(1), 8);
  EXPECT_TRUE(at::equal(clip.video, video->read_frames(8, 4, 3)));
  EXPECT_TRUE(at::equal(clip.actions, at::tensor({10, 13, 16}, at::kLong)));
  EXPECT_EQ(clip.index, 1);
}

TEST_F(ClipDatasetTest, FpsChoosesTheStrideAndMustDivideTheFiles) {
  auto at_rate = config();
  at_rate.fps = 5;
  at_rate.stride = 7;  // ignored
  EXPECT_EQ(ClipDataset(make({.fps = 15.0}), at_rate, Split::all).stride(), 3);
  at_rate.fps = 0.1;
  at_rate.num_frames = 2;
  EXPECT_THAT(error_of(make({.fps = 15.0}), at_rate), HasSubstr("stride 150"));
  at_rate.fps = 4;
  EXPECT_THAT(error_of(make({.fps = 15.0}), at_rate),
              AllOf(HasSubstr("data.fps = 4"), HasSubstr("15 frames a second")));
  at_rate.fps = 30;
  EXPECT_THAT(error_of(make({.fps = 15.0}), at_rate), HasSubstr("data.fps = 30"));
  EXPECT_THAT(error_of(make({}), at_rate), HasSubstr("no attribute 'fps'"));
}

TEST_F(ClipDatasetTest, TooFewFramesNamesTheLongestEpisode) {
  auto long_clips = config();
  long_clips.num_frames = 16;
  EXPECT_THAT(error_of(make({.episode_ends = {{8, 20}}}), long_clips),
              AllOf(HasSubstr("longest of 12 frames"), HasSubstr("16 are needed")));
}

TEST_F(ClipDatasetTest, SplitsAreDisjointCoverEverythingAndDependOnTheSeed) {
  const auto video = episodes(20);
  auto split = config();
  split.validation_fraction = 0.25;
  std::set<std::set<int64_t>> seen;
  for (int64_t seed = 0; seed < 4; ++seed) {
    split.split_seed = seed;
    const auto training = frames_of(ClipDataset(video, split, Split::training), 4);
    const auto validation = frames_of(ClipDataset(video, split, Split::validation), 4);
    EXPECT_EQ(validation.size(), 50u);
    EXPECT_EQ(training.size(), 150u);
    for (const int64_t frame : validation) EXPECT_EQ(training.count(frame), 0u);
    seen.insert(validation);
  }
  EXPECT_GT(seen.size(), 1u);
}

TEST_F(ClipDatasetTest, TheSplitIsTheSameOnEveryPlatform) {
  auto split = config();
  const auto video = episodes(10);
  split.validation_fraction = 0.2;
  const ClipDataset validation(video, split, Split::validation);
  std::set<int64_t> held_out;
  for (int64_t i = 0; i < validation.size(); ++i) held_out.insert(validation.first_frame(i) / 10);
  EXPECT_EQ(held_out, (std::set<int64_t>{2, 5}));
}

TEST_F(ClipDatasetTest, ASmallFractionStillHoldsOutOneEpisode) {
  auto split = config();
  split.validation_fraction = 0.01;
  EXPECT_EQ(ClipDataset(episodes(3), split, Split::validation).size(), 7);
  split.validation_fraction = 0.9;
  EXPECT_EQ(ClipDataset(episodes(2), split, Split::training).size(), 7);
}

TEST_F(ClipDatasetTest, ASingleEpisodeIsCutInTime) {
  const auto video = make({});
  auto split = config();
  split.validation_fraction = 0.25;
  const auto training = frames_of(ClipDataset(video, split, Split::training), 4);
  const auto validation = frames_of(ClipDataset(video, split, Split::validation), 4);
  EXPECT_EQ(*training.rbegin(), 14);
  EXPECT_EQ(*validation.begin(), 15);
}

TEST_F(ClipDatasetTest, NothingIsHeldOutWithoutAFractionOrWithAFileToValidateOn) {
  const auto video = episodes(4);
  auto whole = config();
  whole.validation_fraction = 0;
  EXPECT_EQ(ClipDataset(video, whole, Split::training).size(), 28);
  EXPECT_THAT(error_of(video, whole, Split::validation), HasSubstr("validation_fraction above 0"));
  whole.validation_fraction = 0.5;
  whole.validation_path = "other.h5";
  EXPECT_EQ(ClipDataset(video, whole, Split::training).size(), 28);
  EXPECT_EQ(ClipDataset(video, whole, Split::validation).size(), 28);
}

TEST_F(ClipDatasetTest, SpreadIsEvenSortedAndWithoutRepeats) {
  const ClipDataset dataset(make({}), config(), Split::all);  // 17 clips
  EXPECT_EQ(dataset.spread(3), (std::vector<int64_t>{2, 8, 14}));
  EXPECT_EQ(dataset.spread(100).size(), 17u);
  EXPECT_EQ(dataset.spread(100).back(), 16);
  EXPECT_TRUE(dataset.spread(0).empty());
}

TEST_F(ClipDatasetTest, ResizingAveragesAndKeepsConstantColours) {
  auto frames = at::full({2, 64, 64, 3}, 200, at::kByte);
  EXPECT_TRUE(at::equal(resize_frames(frames, 16, 24), at::full({2, 16, 24, 3}, 200, at::kByte)));
  // Stripes finer than the result: without antialiasing they would stay black and white.
  frames.slice(1, 0, 64, 2).zero_();
  const auto middle = resize_frames(frames, 8, 8).slice(1, 1, 7).to(at::kFloat);
  EXPECT_LE((middle - 100).abs().max().item<float>(), 8);
  // Halves stay halves.
  auto halves = at::zeros({1, 32, 32, 3}, at::kByte);
  halves.slice(2, 16).fill_(255);
  const auto small = resize_frames(halves, 8, 8);
  EXPECT_EQ(small[0][4][0][0].item<int>(), 0);
  EXPECT_EQ(small[0][4][7][0].item<int>(), 255);
}

TEST_F(ClipDatasetTest, ClipsHaveTheConfiguredSize) {
  auto sized = config();
  sized.height = 16;
  sized.width = 5;
  const ClipDataset dataset(make({}), sized, Split::all);
  EXPECT_EQ(dataset.get(0).video.sizes(), (std::vector<int64_t>{4, 16, 5, 3}));
  EXPECT_EQ(dataset.get(0).video.scalar_type(), at::kByte);
}

TEST_F(ClipDatasetTest, AugmentationIsOneDrawAClipAndRepeatsWithItsSeed) {
  const auto one = testing::expected_frames({.shape = {1, 8, 10, 3}});
  const auto same = one.expand({4, 8, 10, 3}).contiguous();
  auto augmented = config();
  augmented.horizontal_flip = true;
  augmented.random_crop = 0.4;
  std::set<int64_t> sums;
  for (uint64_t seed = 1; seed < 20; seed += 2) {
    const auto result = augment_frames(same, augmented, seed);
    EXPECT_TRUE(at::equal(result, augment_frames(same, augmented, seed)));
    for (int64_t t = 1; t < 4; ++t) EXPECT_TRUE(at::equal(result[t], result[0]));
    sums.insert(result.to(at::kLong).sum().item<int64_t>());
  }
  EXPECT_GT(sums.size(), 3u);
  EXPECT_TRUE(at::equal(augment_frames(same, augmented, 0), same));
}

TEST_F(ClipDatasetTest, FlipMirrorsAboutHalfOfTheClips) {
  const auto frames = testing::expected_frames({.shape = {2, 8, 10, 3}});
  auto flipping = config();
  flipping.horizontal_flip = true;
  int mirrored = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const auto result = augment_frames(frames, flipping, mix_seed(3, seed) | 1);
    const bool flipped = at::equal(result, frames.flip({2}));
    EXPECT_TRUE(flipped || at::equal(result, frames));
    mirrored += flipped;
  }
  EXPECT_GE(mirrored, 70);
  EXPECT_LE(mirrored, 130);
}

TEST_F(ClipDatasetTest, ReadsTheRecordedCoinrunFile) {
  const auto path = std::filesystem::path(GENIE_SOURCE_DIR) / "../shared/data/coinrun_val.h5";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no recording at " << path;
  config::DataConfig config;
  config.fps = 5;
  const ClipDataset dataset(std::make_shared<VideoFile>(path.string()), config, Split::training);
  EXPECT_EQ(dataset.stride(), 3);
  const auto clip = dataset.get(dataset.size() - 1);
  EXPECT_EQ(clip.video.sizes(), (std::vector<int64_t>{16, 64, 64, 3}));
  EXPECT_GT(clip.video.to(at::kFloat).std().item<float>(), 1);
  EXPECT_TRUE(clip.actions.lt(15).all().item<bool>());
}

}  // namespace
}  // namespace genie::data
