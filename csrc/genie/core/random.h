#pragma once

#include <cstdint>
#include <string_view>

namespace genie {

/// One step of splitmix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit of its argument.
constexpr uint64_t splitmix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// A seed that depends on each of the arguments. All randomness of training is drawn from generators seeded
/// by (run seed, purpose, step or sample index), so that it needs no saved state and no order of execution.
template <class... Parts>
constexpr uint64_t mix_seed(uint64_t seed, Parts... parts) {
  uint64_t mixed = splitmix64(seed);
  ((mixed = splitmix64(mixed ^ static_cast<uint64_t>(parts))), ...);
  return mixed;
}

/// A hash of a text that is the same on every platform, as std::hash need not be.
constexpr uint64_t stable_hash(std::string_view text) {
  uint64_t hash = 0;
  for (const char c : text) hash = splitmix64(hash ^ static_cast<unsigned char>(c));
  return hash;
}

/// The purposes randomness is drawn for; each has a stream of its own.
enum class Stream : uint64_t {
  initialization = 1,
  data_order,
  augmentation,
  split,
  dropout,
  mask,
  corruption,
  codebook,
  sampling
};

}  // namespace genie
