#include "genie/ops/sequence_attention/sequence_attention.h"

namespace genie::ops {

constinit CpuKernel<void(const SequenceAttention&, HeadRows<void>)> attend_sequences;
constinit CpuKernel<void(const SequenceAttention&, HeadRows<const void>, HeadRows<void>, HeadRows<void>,
                         HeadRows<void>)>
    attend_sequences_backward;

}  // namespace genie::ops
