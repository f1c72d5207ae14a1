#include <gmock/gmock.h>
#include <torch/script.h>

#include "data_fixtures.h"
#include "genie/data/quality_filter.h"
#include "genie/data/video_writer.h"

namespace genie::data {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class QualityFilterTest : public testing::DataTest {
 protected:
  QualityFilterTest() {
    config_.num_frames = 4;
    config_.height = config_.width = 8;
    config_.filter.enabled = true;
    config_.filter.max_cut = 0.3;
  }
  /// Episodes of ten uniform frames with the given brightness in each.
  std::shared_ptr<const VideoFile> write(const std::vector<std::vector<int>>& episodes) {
    VideoWriter writer(file(), 8, 8);
    for (const auto& episode : episodes) {
      for (const int value : episode) writer.append(at::full({1, 8, 8, 3}, value, at::kByte));
      writer.end_episode();
    }
    writer.close();
    return std::make_shared<VideoFile>(file());
  }
  std::string save_classifier(const std::string& body) {
    torch::jit::Module module("classifier");
    module.define(body);
    module.save(file("classifier.pt"));
    return file("classifier.pt");
  }
  std::string error_of(const std::shared_ptr<const VideoFile>& video) {
    return testing::error_of([&] { ClipDataset dataset(video, config_, Split::all); });
  }

  config::DataConfig config_;
  const std::vector<int> moving_{60, 70, 60, 70, 60, 70, 60, 70, 60, 70};
  const std::vector<int> still_{90, 90, 90, 90, 90, 90, 90, 90, 90, 90};
  const std::vector<int> black_{0, 1, 0, 1, 0, 1, 0, 1, 0, 1};
  const std::vector<int> cut_{60, 70, 60, 70, 60, 200, 210, 200, 210, 200};  // between frames 4 and 5
};

TEST_F(QualityFilterTest, CountsWhatItDropsByReason) {
  const auto video = write({moving_, still_, black_, cut_});
  const ClipDataset dataset(video, config_, Split::all);
  const auto& report = dataset.filter_report();
  EXPECT_EQ(report.kept, 7 + 4);
  EXPECT_EQ(report.still, 7);
  EXPECT_EQ(report.black, 7);
  EXPECT_EQ(report.cut, 3);
  EXPECT_EQ(report.classified, 0);
  EXPECT_EQ(dataset.size(), 11);
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const int64_t start = dataset.first_frame(i);
    EXPECT_TRUE(start < 10 || start == 30 || start == 31 || start == 35 || start == 36) << start;
  }
}

TEST_F(QualityFilterTest, AnEpisodesEndIsNoCutAndDisablingKeepsAll) {
  const auto video = write({moving_, {230, 240, 230, 240, 230, 240, 230, 240, 230, 240}});
  EXPECT_EQ(ClipDataset(video, config_, Split::all).size(), 14);
  config_.filter.enabled = false;
  EXPECT_EQ(ClipDataset(write({still_, black_}), config_, Split::all).size(), 14);
}

TEST_F(QualityFilterTest, MeasuresMatchDirectOnesForAnyNumberOfThreads) {
  const testing::FileSpec spec{.shape = {40, 200, 200, 3}};  // several blocks
  testing::write_file(file(), spec);
  const VideoFile video(file());
  const auto frames = testing::expected_frames(spec).to(at::kFloat).div_(255);
  const auto one = measure_frames(video, {{0, 15}, {15, 40}}, 1);
  const auto four = measure_frames(video, {{0, 15}, {15, 40}}, 4);
  EXPECT_EQ(one.brightness, four.brightness);
  EXPECT_EQ(one.change, four.change);
  for (int64_t t = 0; t < 40; ++t) {
    EXPECT_LE(std::abs(one.brightness[t] - frames[t].mean().item<float>()), 1e-5);
    const bool last = t == 14 || t == 39;
    const float change = last ? 0.f : (frames[t + 1] - frames[t]).abs().mean().item<float>();
    EXPECT_LE(std::abs(one.change[t] - change), 1e-5);
  }
}

TEST_F(QualityFilterTest, WhereNothingRemainsTheThresholdsAreNamed) {
  EXPECT_THAT(error_of(write({still_, black_})),
              AllOf(HasSubstr("of 14, 7 are black (data.filter.min_brightness = 0.02)"),
                    HasSubstr("7 stand still (min_motion = 0.0005)")));
}

TEST_F(QualityFilterTest, AClassifierDropsClipsWithALowMeanScore) {
  config_.filter.classifier = save_classifier("def forward(self, x):\n  return x.mean(dim=[1, 2, 3])\n");
  config_.filter.classifier_threshold = 0.5;
  const auto video = write({moving_, {230, 240, 230, 240, 230, 240, 230, 240, 230, 240}});
  const ClipDataset dataset(video, config_, Split::all);
  EXPECT_EQ(dataset.size(), 7);
  EXPECT_EQ(dataset.first_frame(0), 10);
  EXPECT_EQ(dataset.filter_report().classified, 7);
}

TEST_F(QualityFilterTest, WrongClassifiersAreNamed) {
  const auto video = write({moving_});
  config_.filter.classifier = file("missing.pt");
  EXPECT_THAT(error_of(video), AllOf(HasSubstr("missing.pt"), HasSubstr("does not exist")));
  config_.filter.classifier = file();
  EXPECT_THAT(error_of(video), HasSubstr("is not a TorchScript file"));
  config_.filter.classifier = save_classifier("def forward(self, x):\n  return x.mean()\n");
  EXPECT_THAT(error_of(video), HasSubstr("one score a frame, 10, found 1 values"));
  config_.filter.classifier =
      save_classifier("def forward(self, x):\n  return x.mean(dim=[1, 2, 3]) / 0.0\n");
  EXPECT_THAT(error_of(video), HasSubstr("not finite"));
  config_.filter.classifier = save_classifier("def forward(self, x):\n  return x.mean(dim=[7])\n");
  const auto message = error_of(video);
  EXPECT_THAT(message, HasSubstr("failed on float frames [10, 3, 8, 8]"));
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

}  // namespace
}  // namespace genie::data
