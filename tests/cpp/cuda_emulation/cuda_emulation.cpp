#include "cuda_emulation.h"

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

dim3 threadIdx, blockIdx, gridDim;

namespace genie::emulation {
namespace {

constexpr unsigned warp_size = 32;
constexpr size_t stack_bytes = 128 * 1024;
constexpr int64_t guard_bytes = 64;
constexpr unsigned char guard = 0xa5;

/// Where `expected` threads wait for each other.
struct Barrier {
  unsigned expected = 0, arrived = 0;
  uint64_t round = 0;
};

struct Fiber {
  ucontext_t context{};
  std::unique_ptr<std::byte[]> stack = std::make_unique<std::byte[]>(stack_bytes);
  const Barrier* waits_at = nullptr;
  uint64_t waits_in = 0;  // the barrier's round it waits for the end of
  bool done = false;

  bool ready() const { return !done && (waits_at == nullptr || waits_at->round != waits_in); }
};

class Block {
 public:
  Block(unsigned threads, int64_t shared, const std::function<void()>& body)
      : body_(body),
        fibers_(threads),
        warps_(threads / warp_size, Barrier{.expected = warp_size}),
        values_(threads),
        all_{.expected = threads},
        shared_bytes_(shared),
        shared_(static_cast<size_t>(shared + guard_bytes) / sizeof(std::max_align_t) + 1) {}

  void run(std::mt19937& random) {
    std::memset(shared_.data(), 0xff, static_cast<size_t>(shared_bytes_));
    std::memset(end_of_shared(), guard, guard_bytes);
    running_ = this;
    for (Fiber& fiber : fibers_) {
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = stack_bytes;
      fiber.context.uc_link = &scheduler_;
      makecontext(&fiber.context, [] { running_->start(); }, 0);
    }
    std::vector<unsigned> order(fibers_.size());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    for (bool progress = true; progress;) {
      progress = false;
      for (const unsigned thread : order) {
        if (!fibers_[thread].ready()) continue;
        progress = true;
        fibers_[thread].waits_at = nullptr;
        threadIdx.x = thread;
        swapcontext(&scheduler_, &fibers_[thread].context);
      }
    }
    for (const Fiber& fiber : fibers_) {
      if (!fiber.done) throw std::runtime_error("threads of a block wait for some that never come");
    }
    for (int64_t i = 0; i < guard_bytes; ++i) {
      if (end_of_shared()[i] != guard) throw std::runtime_error("a kernel wrote beyond its shared memory");
    }
  }

  void wait_for_block() { wait(all_); }
  void wait_for_warp() { wait(warps_[threadIdx.x / warp_size]); }

  uint64_t exchange(uint64_t mine, int lane) {
    const unsigned thread = threadIdx.x, first = thread / warp_size * warp_size;
    values_[thread] = mine;
    wait_for_warp();
    const bool there = lane >= 0 && lane < static_cast<int>(warp_size);
    const uint64_t result = there ? values_[first + static_cast<unsigned>(lane)] : mine;
    wait_for_warp();  // nobody changes the values before all have read
    return result;
  }

  void* shared() { return shared_.data(); }
  static Block* running() { return running_; }

 private:
  void start() {
    body_();
    fibers_[threadIdx.x].done = true;
  }

  void wait(Barrier& barrier) {
    if (++barrier.arrived == barrier.expected) {
      barrier.arrived = 0;
      ++barrier.round;
      return;
    }
    const unsigned thread = threadIdx.x;
    fibers_[thread].waits_at = &barrier;
    fibers_[thread].waits_in = barrier.round;
    swapcontext(&fibers_[thread].context, &scheduler_);
  }

  unsigned char* end_of_shared() { return reinterpret_cast<unsigned char*>(shared_.data()) + shared_bytes_; }

  static inline Block* running_ = nullptr;
  const std::function<void()>& body_;
  std::vector<Fiber> fibers_;
  std::vector<Barrier> warps_;
  std::vector<uint64_t> values_;
  Barrier all_;
  int64_t shared_bytes_;
  std::vector<std::max_align_t> shared_;
  ucontext_t scheduler_{};
};

}  // namespace

void run(dim3 grid, unsigned threads, int64_t shared, const std::function<void()>& body) {
  std::mt19937 random(1);
  gridDim = grid;
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) {
      blockIdx = {x, y};
      Block(threads, shared, body).run(random);
    }
  }
}

void* shared_memory() { return Block::running()->shared(); }
uint64_t exchange(uint64_t mine, int lane) { return Block::running()->exchange(mine, lane); }

}  // namespace genie::emulation

void __syncthreads() { genie::emulation::Block::running()->wait_for_block(); }
void __syncwarp() { genie::emulation::Block::running()->wait_for_warp(); }

unsigned __ballot_sync(unsigned, bool predicate) {
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) {
    bits |= static_cast<unsigned>(genie::emulation::exchange(predicate ? 1 : 0, lane)) << lane;
  }
  return bits;
}
