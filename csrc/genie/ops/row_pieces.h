#pragma once

#include <algorithm>
#include <cstdint>

namespace genie::ops {

/// Rows of `width` numbers done at a time by products that use all threads: a result of theirs takes about
/// 16 MB of float32. Gradients of weights, sums over these rows, run a third slower with fewer.
inline int64_t rows_at_once(int64_t width) { return std::clamp<int64_t>((1 << 22) / width, 256, 65536); }

}  // namespace genie::ops
