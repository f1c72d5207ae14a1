#pragma once

#include <cstring>
#include <type_traits>

#include "genie/ops/cuda/device.cuh"

namespace genie::ops {

enum DrawStatus : int64_t { drawn_well = 0, bad_logits, bad_sample_noise, bad_confidence_noise };

/// What maskgit_step draws from, by row (sample, position): contiguous logits (samples, positions, codes).
template <class T>
struct DrawTask {
  const T* logits;
  int64_t samples, positions, codes;
  const bool* mask;
  const int64_t* masked;  // by sample: how many positions are masked
  int64_t num_masked;     // how many are to stay so
  const double* sample_noise;
  const double* confidence_noise;
  double temperature;
  int64_t top_k;
  double top_p;
  double confidence_temperature;
  bool random;  // the confidence is the noise

  /// Positions of a sample that are to be revealed.
  __device__ int64_t revealed(int64_t sample) const {
    return larger<int64_t>(masked[sample] - num_masked, 0);
  }
};

/// Numbers as unsigned integers of the same order.
__device__ inline uint32_t order_key(float value) {
  uint32_t bits = 0;
  value += 0.0F;  // of the two zeros one
  memcpy(&bits, &value, sizeof bits);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline uint64_t order_key(double value) {
  uint64_t bits = 0;
  value += 0.0;
  memcpy(&bits, &value, sizeof bits);
  return bits >> 63 != 0 ? ~bits : bits | 0x8000000000000000ull;
}

/// One row's codes, of which some were cut off; a lane has codes lane, lane + 32, ...
template <class T>
struct RowDraw {
  using Acc = at::opmath_type<T>;
  using Key = std::conditional_t<std::is_same_v<Acc, double>, uint64_t, uint32_t>;

  const T* logits;
  int64_t codes;
  Acc top;
  double temperature;
  // Codes above the threshold stay, and of those on it the first `ties`.
  Key threshold = 0;
  int64_t ties = 0;
  bool cut = false;

  __device__ Acc logit(int64_t code) const { return static_cast<Acc>(logits[code]); }
  __device__ Acc weight(int64_t code) const {
    return std::exp((logit(code) - top) / static_cast<Acc>(temperature));
  }

  /// Calls body(code, weight, kept) for all codes, a tile of 32 at a time, every lane once a tile; `code` may
  /// be beyond the last. `kept`: not cut off, and more than 0.
  template <class Body>
  __device__ void for_each_tile(const Body& body) const {
    int64_t ties_before = 0;
    for (int64_t first = 0; first < codes; first += warp_size) {
      const int64_t code = first + lane_index();
      const bool valid = code < codes;
      const Acc mass = valid ? weight(code) : Acc(0);
      bool kept = mass > Acc(0);
      if (cut) {
        const Key key = valid ? order_key(logit(code)) : Key(0);
        const bool tied = valid && key == threshold;
        const unsigned tied_lanes = __ballot_sync(all_lanes, tied);
        const int64_t before = ties_before + __popc(tied_lanes & ((1u << lane_index()) - 1));
        kept = kept && (key > threshold || (tied && before < ties));
        ties_before += __popc(tied_lanes);
      }
      body(code, kept ? static_cast<double>(mass) : 0.0, kept);
    }
  }

  __device__ double kept_mass() const {
    double total = 0;
    for_each_tile([&](int64_t, double mass, bool) { total += mass; });
    return warp_sum(total);
  }

  /// Mass and number of the kept codes from `key` on.
  __device__ void above(Key key, double& mass, int64_t& count) const {
    double total = 0;
    int64_t number = 0;
    for_each_tile([&](int64_t code, double share, bool kept) {
      if (!kept || order_key(logit(code)) < key) return;
      total += share;
      ++number;
    });
    mass = warp_sum(total);
    count = warp_sum(number);
  }

  /// Cuts to the most probable codes: the fewest that are `most` codes or hold `share` of mass, whatever
  /// comes first.
  __device__ void keep_most_probable(int64_t most, double share) {
    Key found = 0;  // the largest key from which on the codes suffice
    double mass = 0;
    int64_t count = 0;
    for (int bit = static_cast<int>(sizeof(Key)) * 8 - 1; bit >= 0; --bit) {
      const Key candidate = found | (Key(1) << bit);
      above(candidate, mass, count);
      if (count >= most || mass >= share) found = candidate;
    }
    // Those above it don't, so the rest is taken of the codes on it, the first ones first.
    above(found, mass, count);
    const double mass_from = mass;
    const int64_t count_from = count;
    double mass_above = 0;
    int64_t count_above = 0;
    if (found != static_cast<Key>(~Key(0))) above(static_cast<Key>(found + 1), mass_above, count_above);
    const int64_t tied = count_from - count_above;
    if (tied == 0) return;  // all codes together don't suffice: nothing is cut
    const double each = (mass_from - mass_above) / static_cast<double>(tied);
    int64_t needed = most - count_above;
    for (int64_t n = 1; n < needed && n <= tied; ++n) {
      if (mass_above + static_cast<double>(n) * each >= share) needed = n;
    }
    // A second cut may come after a first one; its ties are of what the first left, and those come first as
    // well.
    const bool same = cut && found == threshold;
    threshold = found;
    ties = same ? smaller(ties, needed) : needed;
    cut = true;
  }

  __device__ int64_t first_with(Acc value) const {
    int64_t found = codes;
    for (int64_t code = lane_index(); code < codes && found == codes; code += warp_size) {
      if (logit(code) == value) found = code;
    }
    return -warp_max(-found);
  }

  /// The code at `noise` of the cumulative mass, in the order of the codes.
  __device__ int64_t at(double noise, double total) const {
    const double target = noise * total;
    double before = 0;
    int64_t found = codes, last = 0;
    for_each_tile([&](int64_t code, double mass, bool kept) {
      double cumulative = mass;
      for (int step = 1; step < warp_size; step *= 2) {
        const double other = __shfl_up_sync(all_lanes, cumulative, step);
        if (lane_index() >= step) cumulative += other;
      }
      if (kept) {
        last = code;
        if (found == codes && before + cumulative > target) found = code;
      }
      before += __shfl_sync(all_lanes, cumulative, warp_size - 1);
    });
    found = -warp_max(-found);
    last = warp_max(last);
    return found < codes ? found : last;  // rounding may leave the last code's share short of the total
  }
};

/// A standard Gumbel variable from a uniform one.
__device__ inline double gumbel(double uniform) {
  return -std::log(-std::log(larger(uniform, std::numeric_limits<double>::min())));
}

/// Draws a code for each masked position of samples that have something to reveal. By row: the code, its
/// confidence, and a DrawStatus. A warp a row.
template <class T>
__global__ void draw_codes_of(DrawTask<T> task, int64_t* drawn, double* confidence, int64_t* status) {
  using Acc = at::opmath_type<T>;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * block_warps + warp_index();
  if (row >= task.samples * task.positions) return;
  const double sample_noise = task.sample_noise[row], order_noise = task.confidence_noise[row];
  int64_t state = drawn_well;
  if (!(order_noise >= 0 && order_noise < 1)) state = bad_confidence_noise;
  if (!(sample_noise >= 0 && sample_noise < 1)) state = bad_sample_noise;
  if (lane_index() == 0) status[row] = state;
  if (state != drawn_well || !task.mask[row] || task.revealed(row / task.positions) == 0) return;

  RowDraw<T> codes{
      .logits = task.logits + row * task.codes, .codes = task.codes, .top = Acc(0), .temperature = 1};
  Acc top = lowest<Acc>();
  bool broken = false;
  for (int64_t code = lane_index(); code < task.codes; code += warp_size) {
    const Acc value = codes.logit(code);
    broken = broken || value != value;
    top = larger(top, value);
  }
  codes.top = warp_max(top);
  if (__any_sync(all_lanes, broken) || codes.top - codes.top != Acc(0)) {  // NaN, +inf, or nothing but -inf
    if (lane_index() == 0) status[row] = bad_logits;
    return;
  }
  const double total = codes.kept_mass();
  int64_t code = 0;
  if (static_cast<Acc>(task.temperature) == Acc(0)) {
    code = codes.first_with(codes.top);
  } else {
    codes.temperature = task.temperature;
    if (task.top_k > 0 && task.top_k < task.codes) codes.keep_most_probable(task.top_k, -lowest<double>());
    if (task.top_p < 1) codes.keep_most_probable(task.codes, task.top_p * codes.kept_mass());
    code = codes.at(sample_noise, codes.kept_mass());
  }
  if (lane_index() != 0) return;
  double sure = static_cast<double>(codes.logit(code)) - static_cast<double>(codes.top) - std::log(total);
  if (task.confidence_temperature > 0) sure += task.confidence_temperature * gumbel(order_noise);
  drawn[row] = code;
  confidence[row] = task.random ? order_noise : sure;
}

/// Reveals the most confident draws of each sample, of equal ones the first. A thread a position.
template <class T>
__global__ void reveal_codes(DrawTask<T> task, const int64_t* drawn, const double* confidence,
                             int64_t* tokens, bool* mask) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * block_threads + threadIdx.x;
  if (row >= task.samples * task.positions || !task.mask[row]) return;
  const int64_t sample = row / task.positions, revealed = task.revealed(sample);
  if (revealed == 0) return;
  int64_t better = 0;
  for (int64_t other = sample * task.positions; other < (sample + 1) * task.positions; ++other) {
    if (!task.mask[other]) continue;
    const double mine = confidence[row], others = confidence[other];
    better += others > mine || (others == mine && other < row) ? 1 : 0;
  }
  if (better >= revealed) return;
  tokens[row] = drawn[row];
  mask[row] = false;
}

}  // namespace genie::ops
