#include "genie/ops/linear_cross_entropy/softmax_gradient.h"

#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "genie/ops/cpu/exp2_vec.h"
#include "genie/ops/cpu/reduce_vec.h"
#include "genie/ops/cpu/rows_vec.h"

namespace genie::ops {
inline namespace CPU_CAPABILITY {
namespace {

using Vec = at::vec::Vectorized<float>;

void add_row(const SoftmaxRows& task, int64_t row, SoftmaxSums& sums) {
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  float* logits = task.logits + row * task.classes;
  const int64_t target = task.targets[row];
  const float picked = logits[target];
  Vec greatest(lowest), all(0.0F);
  for_vectors(task.classes, [&](int64_t c, int lanes) {
    greatest = at::vec::maximum(greatest, load(logits + c, lanes, lowest));
    if (task.smoothing > 0) all = all + load(logits + c, lanes, 0);
  });
  const float largest = largest_of(greatest);
  // A sum of sums of few: float32's rounding grows with the number of terms.
  constexpr int64_t few = 64 * Vec::size();
  double total = 0;
  for (int64_t first = 0; first < task.classes; first += few) {
    Vec exponentials(0.0F);
    for_vectors(std::min(few, task.classes - first), [&](int64_t c, int lanes) {
      const Vec value = exp2_to_127((load(logits + first + c, lanes, lowest) - Vec(largest)) *
                                    Vec(static_cast<float>(log2_of_e)));
      if (task.gradient) value.store(logits + first + c, lanes);
      exponentials = exponentials + value;
    });
    total += static_cast<double>(sum_of(exponentials));
  }
  const float kept = 1 - task.smoothing;
  const float share = task.smoothing / static_cast<float>(task.classes);
  sums.loss += static_cast<double>(largest) + std::log(total) - static_cast<double>(kept * picked) -
               static_cast<double>(share * sum_of(all));
  sums.correct += picked >= largest ? 1 : 0;
  if (!task.gradient) return;
  const float one = largest - largest + 1;  // not a number where the largest is none or infinite
  const Vec inverse(one / static_cast<float>(total)), rest(share);
  for_vectors(task.classes, [&](int64_t c, int lanes) {
    (load(logits + c, lanes, 0) * inverse - rest).store(logits + c, lanes);
  });
  logits[target] -= kept;
}

SoftmaxSums softmax_gradient_cpu(const SoftmaxRows& task) {
  constexpr int64_t few = 64;  // a group's sum does not depend on the number of threads
  const int64_t groups = (task.rows + few - 1) / few;
  std::vector<SoftmaxSums> partial(static_cast<size_t>(groups));
  at::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      const int64_t last = std::min(task.rows, (group + 1) * few);
      for (int64_t row = group * few; row < last; ++row) {
        add_row(task, row, partial[static_cast<size_t>(group)]);
      }
    }
  });
  SoftmaxSums sums;
  for (const SoftmaxSums& part : partial) {
    sums.loss += part.loss;
    sums.correct += part.correct;
  }
  return sums;
}

}  // namespace
}  // namespace CPU_CAPABILITY

GENIE_CPU_KERNEL(softmax_gradient, softmax_gradient_cpu);

}  // namespace genie::ops
