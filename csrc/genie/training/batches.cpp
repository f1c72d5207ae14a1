#include "genie/training/batches.h"

#include <ATen/ATen.h>

#include <chrono>
#include <utility>

#include "genie/core/random.h"
#include "genie/data/sample_order.h"
#include "genie/training/device.h"

namespace genie::training {
namespace {

std::vector<int64_t> numbers(int64_t first, int64_t count) {
  std::vector<int64_t> samples(count);
  for (int64_t i = 0; i < count; ++i) samples[i] = first + i;
  return samples;
}

class VideoBatches : public Batches {
 public:
  VideoBatches(std::shared_ptr<const data::ClipDataset> clips, const data::LoaderOptions& options,
               int64_t position, const c10::Device& device)
      : loader_(std::move(clips), options, position), device_(device) {}

  std::vector<Part> next(int64_t parts) override {
    const data::Batch batch = loader_.next();
    const int64_t size = batch.video.size(0) / parts;
    std::vector<Part> result;
    for (int64_t p = 0; p < parts; ++p) {
      result.push_back(
          {models::to_model_input(sent_to(device_, batch.video.narrow(0, p * size, size)), device_),
           numbers(batch.first_sample + p * size, size)});
    }
    return result;
  }
  double wait_seconds() const override { return loader_.wait_seconds(); }

 private:
  data::Loader loader_;
  c10::Device device_;
};

class CachedBatches : public Batches {
 public:
  CachedBatches(std::shared_ptr<const TokenCache> cache, const data::LoaderOptions& options, int64_t position,
                const c10::Device& device)
      : cache_(std::move(cache)),
        options_(options),
        order_(cache_->shape().clips, options.seed),
        position_(position),
        device_(device) {}

  std::vector<Part> next(int64_t parts) override {
    const auto begin = std::chrono::steady_clock::now();
    const int64_t first = (position_ * options_.world_size + options_.rank) * options_.batch_size;
    const int64_t size = options_.batch_size / parts;
    std::vector<Part> result;
    for (int64_t p = 0; p < parts; ++p) {
      std::vector<at::Tensor> tokens, actions;
      const std::vector<int64_t> samples = numbers(first + p * size, size);
      for (const int64_t sample : samples) {
        TokenCache::Clip clip = cache_->read(order_.clip_of(sample));
        tokens.push_back(std::move(clip.tokens));
        actions.push_back(std::move(clip.actions));
      }
      result.push_back(
          {at::Tensor(), samples, sent_to(device_, at::stack(tokens)), sent_to(device_, at::stack(actions))});
    }
    ++position_;
    waited_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return result;
  }
  double wait_seconds() const override { return waited_; }

 private:
  std::shared_ptr<const TokenCache> cache_;
  data::LoaderOptions options_;
  data::SampleOrder order_;
  int64_t position_;
  c10::Device device_;
  double waited_ = 0;
};

}  // namespace

data::LoaderOptions loader_options(const config::Config& config, const std::string& phase,
                                   const Processes& processes) {
  data::LoaderOptions options;
  options.batch_size = settings_of_phase(config.training, phase).batch_size;
  options.seed =
      mix_seed(static_cast<uint64_t>(config.training.seed), Stream::data_order, stable_hash(phase));
  options.rank = processes.rank();
  options.world_size = processes.size();
  options.num_workers = config.data.num_workers;
  options.prefetch = config.data.prefetch;
  return options;
}

std::unique_ptr<Batches> video_batches(std::shared_ptr<const data::ClipDataset> clips,
                                       const data::LoaderOptions& options, int64_t position,
                                       const c10::Device& device) {
  return std::make_unique<VideoBatches>(std::move(clips), options, position, device);
}

std::unique_ptr<Batches> cached_batches(std::shared_ptr<const TokenCache> cache,
                                        const data::LoaderOptions& options, int64_t position,
                                        const c10::Device& device) {
  return std::make_unique<CachedBatches>(std::move(cache), options, position, device);
}

}  // namespace genie::training
