#pragma once

// Writing past the caches. Only for *_vec.cpp files.

#include <ATen/cpu/vec/vec.h>

#include <cstdint>
#include <type_traits>

#if defined(CPU_CAPABILITY_AVX2) || defined(CPU_CAPABILITY_AVX512)
#include <immintrin.h>
#endif

namespace genie::ops {
inline namespace CPU_CAPABILITY {

/// Whether `stream` does more than store.
template <class Acc>
constexpr bool streams =
#if defined(CPU_CAPABILITY_AVX2) || defined(CPU_CAPABILITY_AVX512)
    std::is_same_v<Acc, float>;
#else
    false;
#endif

/// Stores a vector, at an address that is a multiple of its size, without fetching what was there and without
/// a place in the caches: for results larger than those.
template <class Acc>
void stream(at::vec::Vectorized<Acc> value, Acc* to) {
#if defined(CPU_CAPABILITY_AVX512)
  if constexpr (streams<Acc>) return _mm512_stream_ps(to, value);
#elif defined(CPU_CAPABILITY_AVX2)
  if constexpr (streams<Acc>) return _mm256_stream_ps(to, value);
#endif
  value.store(to);
}

/// What this thread streamed is seen by the others before what it stores hereafter.
inline void end_stream() {
#if defined(CPU_CAPABILITY_AVX2) || defined(CPU_CAPABILITY_AVX512)
  _mm_sfence();
#endif
}

}  // namespace CPU_CAPABILITY
}  // namespace genie::ops
