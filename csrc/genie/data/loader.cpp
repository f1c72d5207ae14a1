#include "genie/data/loader.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <omp.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "genie/core/error.h"
#include "genie/core/random.h"
#include "genie/data/sample_order.h"

namespace genie::data {

// Work is handed out one clip at a time, in the order of the stream, so a batch that is needed first is never
// behind a later one. At most `prefetch` batches are begun and not yet handed out: that bounds the memory.
struct Loader::Impl {
  struct Slot {
    Batch batch;
    int64_t missing = 0;       ///< clips still to come
    std::exception_ptr error;  ///< of one of its clips
  };
  struct Task {
    Slot* slot;
    int64_t item, index;
    uint64_t augmentation_seed;
  };

  std::shared_ptr<const ClipDataset> dataset;
  LoaderOptions options;
  int64_t position = 0;
  double waited = 0;

  std::mutex mutex;
  std::condition_variable slot_free, batch_ready;
  std::vector<Slot> slots;                ///< of batch k: k % prefetch
  int64_t next_batch = 0, next_item = 0;  ///< the task handed out next
  std::optional<SampleOrder> order;
  bool stopping = false;
  std::vector<std::jthread> workers;  ///< last, so that they end before what they use

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    slot_free.notify_all();
  }
  int64_t first_sample(int64_t batch) const {
    return (batch * options.world_size + options.rank) * options.batch_size;
  }
  bool take_task(Task& task);
  void run_task(const Task& task);
  void work();
};

bool Loader::Impl::take_task(Task& task) {
  std::unique_lock lock(mutex);
  slot_free.wait(lock, [&] { return stopping || next_batch < position + options.prefetch; });
  if (stopping) return false;
  const int64_t sample = first_sample(next_batch) + next_item;
  Slot& slot = slots[next_batch % options.prefetch];
  const int64_t index = order->clip_of(sample);
  if (next_item == 0) {
    slot = Slot{};
    slot.missing = options.batch_size;
    slot.batch.first_sample = sample;
    slot.batch.indices = at::empty({options.batch_size}, at::kLong);
  }
  slot.batch.indices.data_ptr<int64_t>()[next_item] = index;
  const uint64_t seed = mix_seed(options.seed, Stream::augmentation, sample) | 1;
  task = {&slot, next_item, index, options.augment ? seed : 0};
  if (++next_item == options.batch_size) {
    next_item = 0;
    ++next_batch;
  }
  return true;
}

void Loader::Impl::run_task(const Task& task) {
  std::exception_ptr error;
  Clip clip;
  try {
    clip = dataset->get(task.index, task.augmentation_seed);
    std::unique_lock lock(mutex);
    auto& batch = task.slot->batch;
    if (!batch.video.defined()) {  // the first clip to arrive tells the shape
      std::vector<int64_t> sizes{options.batch_size};
      sizes.insert(sizes.end(), clip.video.sizes().begin(), clip.video.sizes().end());
      batch.video = at::empty(sizes, at::kByte);
      if (clip.actions.defined())
        batch.actions = at::empty({options.batch_size, clip.actions.size(0)}, at::kLong);
    }
    auto* video = batch.video.data_ptr<uint8_t>() + task.item * clip.video.numel();
    auto* actions = clip.actions.defined()
                        ? batch.actions.data_ptr<int64_t>() + task.item * clip.actions.numel()
                        : nullptr;
    lock.unlock();  // the rest touches this clip's part alone
    std::memcpy(video, clip.video.const_data_ptr<uint8_t>(), clip.video.numel());
    if (actions) std::memcpy(actions, clip.actions.const_data_ptr<int64_t>(), clip.actions.nbytes());
  } catch (...) {
    error = std::current_exception();
  }
  const std::lock_guard lock(mutex);
  if (error && !task.slot->error) task.slot->error = error;
  if (--task.slot->missing == 0) batch_ready.notify_all();
}

void Loader::Impl::work() {
  // Each worker is one thread of many: its tensor operations must not start a pool of their own. The first
  // call makes torch set this thread's number, so that it does not do so after ours.
  at::internal::lazy_init_num_threads();
  omp_set_num_threads(1);
  const at::NoGradGuard no_grad;
  for (Task task; take_task(task);) run_task(task);
}

Loader::Loader(std::shared_ptr<const ClipDataset> dataset, const LoaderOptions& options, int64_t position)
    : impl_(std::make_unique<Impl>()) {
  check(dataset != nullptr, "a loader needs a dataset");
  check(options.batch_size >= 1 && options.num_workers >= 1 && options.prefetch >= 1 && position >= 0,
        "a loader needs batch_size, num_workers and prefetch >= 1 and position >= 0, found ",
        options.batch_size, ", ", options.num_workers, ", ", options.prefetch, ", ", position);
  check(options.world_size >= 1 && options.rank >= 0 && options.rank < options.world_size,
        "a loader's rank must be ", "in 0..world_size-1, found ", options.rank, " of ", options.world_size);
  impl_->order.emplace(dataset->size(), options.seed);
  impl_->dataset = std::move(dataset);
  impl_->options = options;
  impl_->position = impl_->next_batch = position;
  impl_->slots.resize(options.prefetch);
  for (int64_t i = 0; i < options.num_workers; ++i)
    impl_->workers.emplace_back([impl = impl_.get()] { impl->work(); });
}

Loader::~Loader() = default;

Batch Loader::next() {
  const auto begin = std::chrono::steady_clock::now();
  std::unique_lock lock(impl_->mutex);
  // Asked for anew after each wake-up: another thread may have taken the batch.
  const auto current = [&]() -> Impl::Slot& {
    return impl_->slots[impl_->position % impl_->options.prefetch];
  };
  impl_->batch_ready.wait(lock,
                          [&] { return impl_->next_batch > impl_->position && current().missing == 0; });
  auto& slot = current();
  impl_->waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (slot.error) std::rethrow_exception(slot.error);
  Batch batch = std::move(slot.batch);
  ++impl_->position;
  lock.unlock();
  impl_->slot_free.notify_all();
  return batch;
}

int64_t Loader::position() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->position;
}

double Loader::wait_seconds() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->waited;
}

}  // namespace genie::data
