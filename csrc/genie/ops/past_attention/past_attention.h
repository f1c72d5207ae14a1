#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

#include "genie/ops/cpu/cpu_kernel.h"

namespace genie::ops {

/// Temporal attention of one new frame to itself and to past frames, whose keys and values lie in a ring of
/// slots: the inner loop of cached generation. One pass does what norm, rotation, writing to the ring,
/// scores, softmax and sum would take many small operations for. Pointers to dense row-major arrays of
/// `dtype`.
struct PastAttention {
  at::ScalarType dtype;
  int64_t rows;  // places of the new frame: batch times tokens
  int64_t heads;
  int64_t head_dim;
  double scale;
  const void* qkv;  // (rows, 3, heads, head_dim)
  void* keys;       // (rows, slots, heads, head_dim); receives the new frame's, normalised and turned
  void* values;     // likewise
  int64_t slots;
  int64_t first;  // slot of the earliest frame seen
  int64_t count;  // frames seen: the slots first, first + 1, ..., modulo slots; the last is the new frame's
  const double* cosine;  // (head_dim) of the new frame's rotary angles, or null for none
  const double* sine;
  void* out;  // (rows, heads, head_dim)
};

/// Queries and keys get a LayerNorm a head (no weights, eps 1e-6) first. Channel c is turned with c +
/// head_dim / 4 inside each half of the head, as by genie::rope_register.
extern CpuKernel<void(const PastAttention&)> attend_past;

}  // namespace genie::ops
