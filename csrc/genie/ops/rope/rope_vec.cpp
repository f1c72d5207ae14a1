#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>

#include <cmath>
#include <vector>

#include "genie/ops/rope/rope_kernel.h"

namespace genie::ops {
inline namespace CPU_CAPABILITY {
namespace {

constexpr int64_t grain = 16;

/// A token's linear map: y[c] = own[c] x[c] + other[c] x[partner of c].
template <class Acc>
struct Coefficients {
  std::vector<Acc> own, other;

  explicit Coefficients(int64_t channels)
      : own(static_cast<size_t>(channels), Acc(1)), other(static_cast<size_t>(channels), Acc(0)) {}

  /// The pair (a, b): y[a] = cos_a x[a] - sin_a x[b], y[b] = cos_b x[b] + sin_b x[a], or the transposed map.
  void set(int64_t a, int64_t b, Acc cos_a, Acc sin_a, Acc cos_b, Acc sin_b, bool transpose) {
    own[static_cast<size_t>(a)] = cos_a;
    own[static_cast<size_t>(b)] = cos_b;
    other[static_cast<size_t>(a)] = transpose ? sin_b : -sin_a;
    other[static_cast<size_t>(b)] = transpose ? -sin_a : sin_b;
  }
};

/// The angles of the three parts of a token's channels.
template <class Acc>
class GridAngles {
 public:
  GridAngles(const RopeTask& task, const GridPositions& grid) : grid_(grid), half_(task.head_dim / 3 / 2) {
    using Vec = at::vec::Vectorized<Acc>;
    for (int64_t j = 0; j < half_; ++j) {
      frequency_.push_back(
          static_cast<Acc>(std::pow(10000.0, -static_cast<double>(j) / static_cast<double>(half_))));
    }
    const auto padded = static_cast<size_t>((3 * half_ + Vec::size() - 1) / Vec::size() * Vec::size());
    angle_.resize(padded);
    cos_.resize(padded);
    sin_.resize(padded);
  }

  void compute(int64_t id, bool transpose, Coefficients<Acc>& out) {
    using Vec = at::vec::Vectorized<Acc>;
    const int64_t frame = id / (grid_.height * grid_.width);
    const int64_t rest = id - frame * grid_.height * grid_.width;
    const int64_t row = rest / grid_.width;
    const int64_t place[3] = {frame, row, rest - row * grid_.width};
    for (int64_t part = 0; part < 3; ++part) {
      for (int64_t j = 0; j < half_; ++j) {
        angle_[static_cast<size_t>(part * half_ + j)] =
            static_cast<Acc>(place[part]) * frequency_[static_cast<size_t>(j)];
      }
    }
    for (size_t i = 0; i < angle_.size(); i += Vec::size()) {
      const Vec angle = Vec::loadu(angle_.data() + i);
      angle.cos().store(cos_.data() + i);
      angle.sin().store(sin_.data() + i);
    }
    for (int64_t part = 0; part < 3; ++part) {
      const Acc* cosine = cos_.data() + part * half_;
      const Acc* sine = sin_.data() + part * half_;
      // Neighbours form the pairs, but the angles run through the frequencies twice.
      for (int64_t c = 0; c < 2 * half_; c += 2) {
        const int64_t a = c % half_, b = (c + 1) % half_, first = part * 2 * half_ + c;
        out.set(first, first + 1, cosine[a], sine[a], cosine[b], sine[b], transpose);
      }
    }
  }

 private:
  const GridPositions& grid_;
  int64_t half_;
  std::vector<Acc> frequency_, angle_, cos_, sin_;
};

template <class T>
void rotate_grid(const RopeTask& task, const GridPositions& grid) {
  using Acc = at::opmath_type<T>;
  const int64_t rotated = task.head_dim / 3 / 2 * 6;
  const int64_t width = task.heads * task.head_dim;
  at::parallel_for(0, task.batch * task.tokens, grain, [&](int64_t begin, int64_t end) {
    Coefficients<Acc> coefficients(task.head_dim);
    GridAngles<Acc> angles(task, grid);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / task.tokens, n = item % task.tokens;
      angles.compute(grid.ids[b * grid.batch_stride + n], task.transpose, coefficients);
      const Acc* own = coefficients.own.data();
      const Acc* other = coefficients.other.data();
      const T* x = static_cast<const T*>(task.x) + b * task.batch_stride + n * task.token_stride;
      T* out = static_cast<T*>(task.out) + item * width;
      for (int64_t h = 0; h < task.heads; ++h, x += task.head_dim, out += task.head_dim) {
        for (int64_t c = 0; c < rotated; c += 2) {
          const auto first = static_cast<Acc>(x[c]), second = static_cast<Acc>(x[c + 1]);
          out[c] = static_cast<T>(own[c] * first + other[c] * second);
          out[c + 1] = static_cast<T>(own[c + 1] * second + other[c + 1] * first);
        }
        for (int64_t c = rotated; c < task.head_dim; ++c) out[c] = x[c];
      }
    }
  });
}

template <class T>
void rotate_tables(const RopeTask& task, const void* cos_table, const void* sin_table) {
  using Acc = at::opmath_type<T>;
  const int64_t quarter = task.head_dim / 4;
  const int64_t width = task.heads * task.head_dim;
  at::parallel_for(0, task.batch * task.tokens, grain, [&](int64_t begin, int64_t end) {
    Coefficients<Acc> coefficients(task.head_dim);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = item / task.tokens, n = item % task.tokens;
      const Acc* cosine = static_cast<const Acc*>(cos_table) + n * task.head_dim;
      const Acc* sine = static_cast<const Acc*>(sin_table) + n * task.head_dim;
      for (int64_t axis = 0; axis < 2; ++axis) {
        for (int64_t c = 2 * axis * quarter; c < (2 * axis + 1) * quarter; ++c) {
          const int64_t partner = c + quarter;
          coefficients.set(c, partner, cosine[c], sine[c], cosine[partner], sine[partner], task.transpose);
        }
      }
      const T* x = static_cast<const T*>(task.x) + b * task.batch_stride + n * task.token_stride;
      T* out = static_cast<T*>(task.out) + item * width;
      for (int64_t pair = 0; pair < 2 * task.heads; ++pair) {
        const Acc* own = coefficients.own.data() + pair % 2 * 2 * quarter;
        const Acc* other = coefficients.other.data() + pair % 2 * 2 * quarter;
        for (int64_t c = 0; c < quarter; ++c) {
          const auto first = static_cast<Acc>(x[c]), second = static_cast<Acc>(x[c + quarter]);
          out[c] = static_cast<T>(own[c] * first + other[c] * second);
          out[c + quarter] = static_cast<T>(own[c + quarter] * second + other[c + quarter] * first);
        }
        x += 2 * quarter;
        out += 2 * quarter;
      }
    }
  });
}

void rotate_3d_cpu(const RopeTask& task, const GridPositions& grid) {
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, task.dtype, "rope_3d",
                                 [&] { rotate_grid<scalar_t>(task, grid); });
}

void rotate_register_cpu(const RopeTask& task, const void* cos, const void* sin) {
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, task.dtype, "rope_register",
                                 [&] { rotate_tables<scalar_t>(task, cos, sin); });
}

}  // namespace
}  // namespace CPU_CAPABILITY

GENIE_CPU_KERNEL(rotate_3d, rotate_3d_cpu);
GENIE_CPU_KERNEL(rotate_register, rotate_register_cpu);

}  // namespace genie::ops
