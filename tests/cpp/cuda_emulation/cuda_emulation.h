#pragma once

// CUDA's words for a host compiler, so that the tests run the sources of the kernels on the CPU: one thread
// of a block after another, each a fiber that hands over where it waits for others. No GPU: timing, memory
// order between threads and the limits of a device are not what this can show. Included before everything
// else in the *.cu files.

#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define GENIE_SHARED(Type, name) Type* const name = static_cast<Type*>(genie::emulation::shared_memory())

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

// Those of the running fiber.
extern dim3 threadIdx, blockIdx, gridDim;

void __syncthreads();
void __syncwarp();
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

namespace genie::emulation {

/// Runs `body` for every thread of the grid, block by block; the order of a block's threads is drawn anew for
/// each. Shared memory starts as NaN. Throws std::runtime_error where threads wait for some that never come,
/// or write beyond the `shared` bytes.
void run(dim3 grid, unsigned threads, int64_t shared, const std::function<void()>& body);

void* shared_memory();

/// Shows `mine` to the warp and returns that of `lane`, or of this lane where there is no such.
uint64_t exchange(uint64_t mine, int lane);

template <class Value>
Value shuffle(Value value, int lane) {
  static_assert(std::is_trivially_copyable_v<Value> && sizeof(Value) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(bits, lane);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline int lane() { return static_cast<int>(threadIdx.x % 32); }

}  // namespace genie::emulation

template <class Value>
Value __shfl_sync(unsigned, Value value, int lane) {
  return genie::emulation::shuffle(value, lane);
}
template <class Value>
Value __shfl_xor_sync(unsigned, Value value, int mask) {
  return genie::emulation::shuffle(value, genie::emulation::lane() ^ mask);
}
template <class Value>
Value __shfl_up_sync(unsigned, Value value, int step) {
  return genie::emulation::shuffle(value, genie::emulation::lane() - step);
}
unsigned __ballot_sync(unsigned mask, bool predicate);
inline bool __any_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) != 0; }

namespace genie::ops {

/// Starts a kernel as launch.cuh does, here.
template <class... Parameters, class... Arguments>
void launch(const char* /*op*/, void (*kernel)(Parameters...), dim3 grid, int64_t shared,
            const Arguments&... arguments) {
  constexpr unsigned block_threads = 128;
  genie::emulation::run(grid, block_threads, shared, [&] { kernel(arguments...); });
}

}  // namespace genie::ops
