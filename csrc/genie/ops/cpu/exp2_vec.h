#pragma once

// Powers of two, with less work than at::vec::Vectorized::exp. Only for *_vec.cpp files.

#include <ATen/cpu/vec/vec.h>

#include <cstdint>
#include <type_traits>

namespace genie::ops {
inline namespace CPU_CAPABILITY {

constexpr double log2_of_e = 1.4426950408889634;

/// 2^x for x <= 127 (not checked); 0 below -126.5, NaN for NaN. In float32 the relative error is below 3e-7.
///
/// x is a whole number, whose power is made by writing it into the exponent's bits, and a rest in [-1/2,
/// 1/2], whose power is a polynomial of the least largest relative error (7.5e-8, by Remez exchange).
template <class T>
at::vec::Vectorized<T> exp2_to_127(at::vec::Vectorized<T> x) {
  using Vec = at::vec::Vectorized<T>;
  if constexpr (std::is_same_v<T, float>) {
    using Bits = at::vec::Vectorized<int32_t>;
    // Adding it leaves the rounded number plus 127 in the lowest bits, which is the exponent's form.
    const Vec rounding(12582912.0F + 127.0F);
    x = at::vec::clamp_min(x, Vec(-127.0F));
    const Vec shifted = x + rounding;
    const Vec rest = x - (shifted - rounding);
    Vec power = at::vec::fmadd(rest, Vec(1.327647151625036e-3F), Vec(9.67554139392961e-3F));
    power = at::vec::fmadd(rest, power, Vec(5.550713275748271e-2F));
    power = at::vec::fmadd(rest, power, Vec(0.24022119722745536F));
    power = at::vec::fmadd(rest, power, Vec(0.6931469670625825F));
    power = at::vec::fmadd(rest, power, Vec(1.0000000716544102F));
    return power * at::vec::cast<float>(at::vec::cast<int32_t>(shifted) << Bits(23));
  } else {
    return x.exp2();
  }
}

}  // namespace CPU_CAPABILITY
}  // namespace genie::ops
