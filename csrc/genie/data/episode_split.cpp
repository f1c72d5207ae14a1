#include "genie/data/episode_split.h"

#include <algorithm>
#include <cmath>

#include "genie/core/error.h"
#include "genie/data/shuffle.h"

namespace genie::data {

std::vector<FrameRange> split_episodes(const std::vector<int64_t>& episode_ends,
                                       const config::DataConfig& config, Split split,
                                       const std::string& path) {
  std::vector<FrameRange> episodes;
  int64_t begin = 0;
  for (const int64_t end : episode_ends) {
    episodes.push_back({begin, end});
    begin = end;
  }
  if (split == Split::all || !config.validation_path.empty()) return episodes;

  const double fraction = config.validation_fraction;
  check(fraction >= 0 && fraction < 1, "data.validation_fraction must be at least 0 and below 1, found ",
        fraction);
  if (fraction == 0) {
    check(split == Split::training, "nothing of '", path,
          "' is held out: set data.validation_fraction above 0 or ", "give data.validation_path");
    return episodes;
  }

  const auto count = static_cast<int64_t>(episodes.size());
  if (count == 1) {
    const int64_t frames = episode_ends[0];
    const int64_t cut = frames - std::max<int64_t>(1, std::llround(fraction * static_cast<double>(frames)));
    return {split == Split::training ? FrameRange{0, cut} : FrameRange{cut, frames}};
  }
  const int64_t held_out =
      std::clamp<int64_t>(std::llround(fraction * static_cast<double>(count)), 1, count - 1);
  const auto order =
      random_permutation(count, mix_seed(static_cast<uint64_t>(config.split_seed), Stream::split));
  std::vector<bool> validates(count, false);
  for (int64_t i = 0; i < held_out; ++i) validates[order[i]] = true;
  std::vector<FrameRange> chosen;
  for (int64_t i = 0; i < count; ++i) {
    if (validates[i] == (split == Split::validation)) chosen.push_back(episodes[i]);
  }
  return chosen;
}

}  // namespace genie::data
