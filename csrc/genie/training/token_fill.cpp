#include "genie/training/token_fill.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <future>
#include <set>
#include <vector>

#include "genie/core/error.h"
#include "genie/core/progress.h"
#include "genie/core/random.h"
#include "genie/data/sample_order.h"
#include "genie/nn/autocast.h"
#include "genie/training/batches.h"
#include "genie/training/device.h"
#include "genie/training/module_state.h"

namespace genie::training {
namespace {

std::string hex(uint64_t number) { return concat(std::hex, number); }

/// The clips that the phase's samples show, in ascending order.
std::vector<int64_t> needed_clips(int64_t clips, const data::LoaderOptions& options, int64_t steps) {
  const int64_t samples = steps * options.batch_size * options.world_size;
  data::SampleOrder order(clips, options.seed);
  std::set<int64_t> needed;
  for (int64_t s = 0; s < std::min(samples, clips); ++s) needed.insert(order.clip_of(s));
  return {needed.begin(), needed.end()};
}

at::Tensor read_video(const data::ClipDataset& clips, const std::vector<int64_t>& indices) {
  std::vector<at::Tensor> videos;
  for (const int64_t index : indices) videos.push_back(clips.get(index).video);
  return at::stack(videos);
}

}  // namespace

CacheKey token_cache_key(models::Genie genie, const data::ClipDataset& clips, c10::ScalarType dtype) {
  const config::Config& config = genie->config();
  config::Config models;
  models.tokenizer = config.tokenizer;
  models.latent_action = config.latent_action;
  const std::string& path = clips.file().path();
  struct stat file {};
  check(::stat(path.c_str(), &file) == 0, path, ": cannot be found any more");
  uint64_t frames = 0;
  for (int64_t i = 0; i < clips.size(); ++i)
    frames = splitmix64(frames ^ static_cast<uint64_t>(clips.first_frame(i)));
  return {{"format", "1"},
          {"data file", concat(path, ", ", file.st_size, " bytes, changed ", file.st_mtim.tv_sec, ".",
                               file.st_mtim.tv_nsec)},
          {"clips", concat(clips.size(), " ", hex(frames), " stride ", clips.stride())},
          {"frame size", concat(config.data.width, "x", config.data.height)},
          {"model configuration", hex(stable_hash(config::to_yaml(models)))},
          {"tokenizer weights", hex(weights_hash(*genie->tokenizer()))},
          {"latent action weights", hex(weights_hash(*genie->latent_action()))},
          {"precision", c10::toString(dtype)}};
}

std::shared_ptr<const TokenCache> fill_token_cache(models::Genie genie, const data::ClipDataset& clips,
                                                   const std::string& directory, const Processes& processes,
                                                   const TrainerHooks& hooks) {
  const config::Config& config = genie->config();
  const config::PhaseConfig& settings = config.training.dynamics;
  const c10::Device device = training_device(config.training);
  const c10::ScalarType dtype = nn::dtype_named(config.training.dtype);
  CacheKey key = token_cache_key(genie, clips, dtype);
  TokenCache::Shape shape{clips.size(),
                          settings.num_frames > 0 ? settings.num_frames : config.data.num_frames,
                          genie->tokenizer_grid().count()};
  key["num_frames"] = concat(shape.frames);
  if (processes.first()) {
    const std::string stale = TokenCache::prepare(directory, key);
    if (!stale.empty())
      std::fprintf(stderr, "%s: the token cache is stale and is made anew; other than it was: %s\n",
                   directory.c_str(), stale.c_str());
  }
  processes.sum({0.0});  // the others wait for it
  const auto cache = std::make_shared<TokenCache>(directory, key, shape);

  // Groups are always the same, so that a clip's tokens do not depend on where an earlier attempt ended or on
  // how many processes share the work.
  const std::vector<int64_t> needed =
      needed_clips(clips.size(), loader_options(config, "dynamics", processes), settings.steps);
  const int64_t group_size = std::max<int64_t>(1, settings.batch_size / settings.accumulation);
  std::vector<std::vector<int64_t>> groups;
  for (int64_t g = processes.rank(); g * group_size < static_cast<int64_t>(needed.size());
       g += processes.size()) {
    const auto first = needed.begin() + g * group_size;
    const auto end = needed.begin() + std::min<int64_t>(needed.size(), (g + 1) * group_size);
    if (!std::all_of(first, end, [&](int64_t clip) { return cache->has(clip); }))
      groups.emplace_back(first, end);
  }
  ProgressLine::Options options;
  options.quiet = !hooks.show_progress || !processes.first();
  ProgressLine progress("token cache", static_cast<int64_t>(groups.size()), 0, options);
  at::NoGradGuard no_grad;
  bool stop = false;
  std::future<at::Tensor> ahead;
  const auto read_ahead = [&](size_t g) {
    if (g < groups.size())
      ahead = std::async(std::launch::async, [&clips, &groups, g] { return read_video(clips, groups[g]); });
  };
  read_ahead(0);
  for (size_t g = 0; g < groups.size() && !stop; ++g) {
    const at::Tensor video = models::to_model_input(ahead.get(), device);
    read_ahead(g + 1);
    nn::AutocastScope autocast(device.type(), dtype);
    const at::Tensor tokens = genie->tokenizer()->encode(video),
                     actions = genie->latent_action()->infer(video);
    for (size_t i = 0; i < groups[g].size(); ++i)
      cache->write(groups[g][i], tokens[static_cast<int64_t>(i)], actions[static_cast<int64_t>(i)]);
    progress.update(static_cast<int64_t>(g) + 1, {});
    stop = hooks.should_stop && hooks.should_stop();
  }
  cache->sync();
  if (processes.sum({stop ? 1.0 : 0.0})[0] > 0) return nullptr;
  return cache;
}

}  // namespace genie::training
