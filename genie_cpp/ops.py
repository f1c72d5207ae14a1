"""The fused operations, `torch.ops.genie.*`, with types and documentation.

They are ordinary torch operations: differentiable, usable under `torch.compile` and autocast, in
float32, bfloat16 (computed in float32) and float64. The pieces of a block (`norm_linear`,
`linear_residual`, `norm_mlp_residual`) take float32 or float64, or bfloat16 or float16 for what is
multiplied beside float32 for the rest, which is what autocast makes of them.
Wrong shapes and values raise ValueError, wrong dtypes TypeError.

The CUDA kernels (float16 as well) were compiled but never run on a GPU, so they are off: an operation
refuses CUDA tensors, and modules compute with ordinary torch operations, until
`enable_unverified_cuda_kernels()` is called. `rope_3d` and `rope_register` work on any device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genie_cpp import _C  # also registers the operations

__all__ = [
    "area_attention",
    "cuda_kernels_enabled",
    "enable_unverified_cuda_kernels",
    "linear_cross_entropy",
    "linear_residual",
    "maskgit_step",
    "norm_linear",
    "norm_mlp_residual",
    "rope_3d",
    "rope_register",
    "st_attention",
    "vector_quantize",
]


def cuda_kernels_enabled() -> bool:
    """Whether this build has CUDA kernels and they may be used."""
    return _C.cuda_kernels_compiled() and _C.cuda_kernels_enabled()


def enable_unverified_cuda_kernels(enabled: bool = True) -> None:
    """Turns the CUDA kernels, which nobody has run on a GPU yet, on or off for this process.

    The environment variable GENIE_UNVERIFIED_CUDA_KERNELS=1 does the same, for `genie-train` too. Raises
    NotImplementedError where this build has none.
    """
    _C.enable_unverified_cuda_kernels(enabled)


def st_attention(
    qkv: Tensor, axis: str, causal: bool = False, qk_norm: bool = False, scale: float | None = None
) -> Tensor:
    """Attention along one axis of a video, straight from the joint projection.

    qkv (B,T,N,3,heads,head_dim); `axis` "space": the N positions of a frame attend to each other,
    "time": the T frames of a position. `causal`: an element sees itself and what comes before it on that
    axis. `qk_norm`: LayerNorm of each head's queries and keys, without weights, eps 1e-6. `scale`:
    head_dim^-0.5 where None. Returns (B,T,N,heads*head_dim). Double backward isn't supported.
    """
    return torch.ops.genie.st_attention(qkv, axis, causal, qk_norm, scale)


def area_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    scale: float | None = None,
    frame_ids: Tensor | None = None,
) -> Tensor:
    """Attention inside segments of any length that lie one after another, without padding.

    q, k, v (total,heads,head_dim); cu_seqlens (segments+1), int32 or int64, from 0 to total; max_seqlen
    at least the longest segment. With frame_ids (total) a token sees only tokens of its segment whose
    frame isn't later than its own. Returns (total,heads,head_dim). A segment's result depends on its own
    tokens alone, to the bit. Double backward isn't supported.
    """
    return torch.ops.genie.area_attention(q, k, v, cu_seqlens, max_seqlen, scale, frame_ids)


def rope_3d(x: Tensor, positions: Tensor, height: int, width: int, transpose: bool = False) -> Tensor:
    """V-JEPA 2's rotary positions (arXiv 2506.09985) of x (B,N,...,head_dim).

    positions int64, (N) or (B,N): token ids in frames of height x width tokens. Neighbouring channels
    form the pairs while the angles are tiled, as the published weights need it. `transpose` applies the
    transposed map.
    """
    return torch.ops.genie.rope_3d(x, positions, height, width, transpose)


def rope_register(x: Tensor, cos: Tensor, sin: Tensor, transpose: bool = False) -> Tensor:
    """ViT-5's rotary positions of x (B,N,...,head_dim) by tables (N,head_dim): in each half of the head
    channel c pairs with c + head_dim/4. The tables are float32, float64 for float64 x, and have no
    gradient."""
    return torch.ops.genie.rope_register(x, cos, sin, transpose)


def vector_quantize(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest code of each vector: x (M,D), codebook (K,D) to (codes (M,D), int64 indices (M)).

    Of equally near codes the first is taken. The gradient goes to the codebook, not to x.
    """
    quantized, indices = torch.ops.genie.vector_quantize(x, codebook)
    return quantized, indices


def maskgit_step(
    logits: Tensor,
    tokens: Tensor,
    mask: Tensor,
    sample_noise: Tensor,
    confidence_noise: Tensor,
    num_masked: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    confidence_temperature: float = 0.0,
    unmask: str = "confidence",
) -> tuple[Tensor, Tensor]:
    """One step of MaskGIT decoding (Chang et al. 2022, arXiv 2202.04200): (tokens, mask) after it.

    logits (B,N,K); tokens int64 (B,N); mask bool (B,N), True where masked; noise (B,N) uniform in [0,1).
    Draws a code for each masked position (by inverse CDF at `sample_noise`, from softmax(logits /
    temperature) cut by top_k and top_p; temperature 0 takes the most probable) and keeps the most
    confident, so that `num_masked` positions of each sample stay masked. The confidence is the
    log-probability softmax(logits) gives the code, plus `confidence_temperature` times Gumbel noise;
    with unmask="random" it is `confidence_noise`. Has no gradient.
    """
    new_tokens, new_mask = torch.ops.genie.maskgit_step(
        logits,
        tokens,
        mask,
        sample_noise,
        confidence_noise,
        num_masked,
        temperature,
        top_k,
        top_p,
        confidence_temperature,
        unmask,
    )
    return new_tokens, new_mask


def norm_linear(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """linear(layer_norm(x)) of x (...,dim): norm_weight and norm_bias (dim), weight (out,dim), bias (out).

    Returns (...,out). Only x is kept for the backward pass, which computes the norm again. Double backward
    isn't supported.
    """
    return torch.ops.genie.norm_linear(x, norm_weight, norm_bias, eps, weight, bias)


def linear_cross_entropy(
    x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the classes linear(x) and `targets`, summed over rows, without keeping the logits.

    x (M,C), weight (K,C), bias (K), targets int64 (M). `label_smoothing` s: the target distribution is
    (1 - s) one-hot + s / K. Returns the loss (float32, for float64 float64) and the number of rows (int64)
    whose target no other class beats. Gradients are made with the loss, a piece of the rows at a time, as in
    Liger Kernel (arXiv 2410.10989). Raises IndexError for a target outside [0,K). Double backward isn't
    supported.
    """
    loss, correct = torch.ops.genie.linear_cross_entropy(x, weight, bias, targets, label_smoothing)
    return loss, correct


def linear_residual(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor) -> Tensor:
    """residual + linear(x): x (...,dim), weight (out,dim), bias (out), residual (...,out)."""
    return torch.ops.genie.linear_residual(x, weight, bias, residual)


def norm_mlp_residual(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
) -> Tensor:
    """x + linear2(gelu(linear1(layer_norm(x)))), gelu with erf: x (...,dim), weight1 (hidden,dim), weight2
    (dim,hidden).

    x and the hidden layer before its activation are kept for the backward pass; norm and activation are
    computed again. Double backward isn't supported.
    """
    return torch.ops.genie.norm_mlp_residual(x, norm_weight, norm_bias, eps, weight1, bias1, weight2, bias2)
