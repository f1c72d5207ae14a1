#include "genie/ops/cuda/attention.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "genie/ops/cuda/launch.cuh"
#include "genie/ops/cuda/sequence_attention.cuh"
#include "genie/ops/cuda/short_attention.cuh"

namespace genie::ops {
namespace {

template <class T>
HeadArray<const T> input(const at::Tensor& x) {
  return {x.const_data_ptr<T>(), x.stride(0), x.stride(1)};
}
template <class T>
HeadArray<T> output(const at::Tensor& x) {
  return {x.mutable_data_ptr<T>(), x.stride(0), x.stride(1)};
}

template <class T>
AttentionTask<T> task_of(const AttentionCall& call, const HeadTensors& x) {
  return {.rows = call.rows,
          .heads = x.q.size(1),
          .head_dim = x.q.size(2),
          .scale = call.scale,
          .qk_norm = call.qk_norm,
          .q = input<T>(x.q),
          .k = input<T>(x.k),
          .v = input<T>(x.v)};
}

dim3 attention_grid(const AttentionCall& call, const HeadTensors& x) {
  return grid_of(call.op, call.count * x.q.size(1), blocks_for(call.rows.length, own_rows));
}

template <class T>
void backward(const AttentionCall& call, const HeadTensors& x, const at::Tensor& grad_out,
              const HeadTensors& gradients) {
  using Acc = at::opmath_type<T>;
  const auto task = task_of<T>(call, x);
  const auto upstream = input<T>(grad_out);
  const auto to_q = output<T>(gradients.q), to_k = output<T>(gradients.k), to_v = output<T>(gradients.v);
  if (call.rows.offsets == nullptr && call.rows.length <= most_short) {
    launch(call.op, attend_short_backward<T>, grid_of(call.op, call.count * task.heads),
           short_attention_shared(task.head_dim, call.rows.length, sizeof(Acc)), task, upstream, to_q, to_k,
           to_v);
    return;
  }
  const at::Tensor statistics = at::empty({call.rows.total, task.heads, 2},
                                          grad_out.options().dtype(c10::CppTypeToScalarType<Acc>::value));
  launch(call.op, attend_backward_q<T>, attention_grid(call, x),
         attention_shared(task.head_dim, 3, 2, 1, sizeof(Acc)), task, upstream, to_q,
         statistics.mutable_data_ptr<Acc>());
  launch(call.op, attend_backward_kv<T>, attention_grid(call, x),
         attention_shared(task.head_dim, 4, 2, 2, sizeof(Acc)), task, upstream, to_k, to_v,
         statistics.const_data_ptr<Acc>());
}

}  // namespace

void attend_on_cuda(const AttentionCall& call, const HeadTensors& x, const at::Tensor& out) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.q.scalar_type(), "attention", [&] {
    launch(call.op, attend<scalar_t>, attention_grid(call, x),
           attention_shared(x.q.size(2), 2, 2, 1, sizeof(at::opmath_type<scalar_t>)),
           task_of<scalar_t>(call, x), output<scalar_t>(out));
  });
}

void attend_backward_on_cuda(const AttentionCall& call, const HeadTensors& x, const at::Tensor& grad_out,
                             const HeadTensors& gradients) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.q.scalar_type(), "attention",
                                  [&] { backward<scalar_t>(call, x, grad_out, gradients); });
}

at::Tensor normalize_heads_on_cuda(const char* op, const at::Tensor& qkv) {
  const int64_t rows = qkv.size(0), heads = qkv.size(2), channels = qkv.size(3);
  const at::Tensor qk = at::empty({rows, 2, heads, channels}, qkv.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, qkv.scalar_type(), "attention", [&] {
    launch(op, normalize_heads<scalar_t>, grid_of(op, blocks_for(rows * 2 * heads, block_warps)),
           head_norm_shared(channels, 1, sizeof(at::opmath_type<scalar_t>)), qkv.const_data_ptr<scalar_t>(),
           rows, heads, channels, qk.mutable_data_ptr<scalar_t>());
  });
  return qk;
}

at::Tensor pack_gradients_on_cuda(const char* op, const at::Tensor& qkv, bool qk_norm,
                                  const HeadTensors& gradients) {
  const int64_t rows = qkv.size(0), heads = qkv.size(2), channels = qkv.size(3);
  at::Tensor grad_qkv = at::empty_like(qkv);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, qkv.scalar_type(), "attention", [&] {
    launch(op, pack_gradients<scalar_t>, grid_of(op, blocks_for(rows * 3 * heads, block_warps)),
           head_norm_shared(channels, 2, sizeof(at::opmath_type<scalar_t>)), qkv.const_data_ptr<scalar_t>(),
           rows, heads, channels, qk_norm, input<scalar_t>(gradients.q), input<scalar_t>(gradients.k),
           input<scalar_t>(gradients.v), grad_qkv.mutable_data_ptr<scalar_t>());
  });
  return grad_qkv;
}

}  // namespace genie::ops
