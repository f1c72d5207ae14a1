#include "genie/ops/past_attention/past_attention.h"

namespace genie::ops {

constinit CpuKernel<void(const PastAttention&)> attend_past;

}  // namespace genie::ops
