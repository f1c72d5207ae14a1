#include "cuda_emulation.h"

#include <ucontext.h>

#include <algorithm>
#include <csetjmp>
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
  ucontext_t start{};
  std::jmp_buf place{};  // where it goes on; unlike swapcontext no system call
  bool started = false;
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
    std::vector<unsigned> order(fibers_.size());
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    for (bool progress = true; progress;) {
      progress = false;
      for (const unsigned thread : order) {
        if (!fibers_[thread].ready()) continue;
        progress = true;
        threadIdx.x = thread;
        resume(fibers_[thread]);
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

  unsigned ballot(bool mine) {
    const unsigned first = threadIdx.x / warp_size * warp_size;
    values_[threadIdx.x] = mine ? 1 : 0;
    wait_for_warp();
    unsigned bits = 0;
    for (unsigned lane = 0; lane < warp_size; ++lane)
      bits |= static_cast<unsigned>(values_[first + lane]) << lane;
    wait_for_warp();
    return bits;
  }

  void* shared() { return shared_.data(); }
  static Block* running() { return running_; }

 private:
  /// Runs a thread until it waits or ends.
  void resume(Fiber& fiber) {
    fiber.waits_at = nullptr;
    if (_setjmp(scheduler_) != 0) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    static std::vector<std::unique_ptr<std::byte[]>> stacks;  // kept from block to block
    while (stacks.size() < fibers_.size()) stacks.push_back(std::make_unique<std::byte[]>(stack_bytes));
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = stacks[threadIdx.x].get();
    fiber.start.uc_stack.ss_size = stack_bytes;
    makecontext(&fiber.start, [] { running_->start(); }, 0);
    setcontext(&fiber.start);
  }

  void start() {
    body_();
    fibers_[threadIdx.x].done = true;
    _longjmp(scheduler_, 1);
  }

  void wait(Barrier& barrier) {
    if (++barrier.arrived == barrier.expected) {
      barrier.arrived = 0;
      ++barrier.round;
      return;
    }
    Fiber& fiber = fibers_[threadIdx.x];
    fiber.waits_at = &barrier;
    fiber.waits_in = barrier.round;
    if (_setjmp(fiber.place) == 0) _longjmp(scheduler_, 1);
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
  std::jmp_buf scheduler_{};
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
  return genie::emulation::Block::running()->ballot(predicate);
}
