"""The operations' mathematics in plain eager PyTorch, as one would write it today.

Each takes what ours takes. Tables of angles are made beforehand, which ours computes in the call (rope_3d).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5


def st_attention(qkv: Tensor, axis: str, qk_norm: bool) -> Tensor:
    """Of (B,T,N,3,heads,head_dim), over time causal: permutes, scaled_dot_product_attention, and back."""
    b, t, n, _, heads, channels = qkv.shape
    if axis == "space":
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).reshape(3, b * t, heads, n, channels)
    else:
        q, k, v = qkv.permute(3, 0, 2, 4, 1, 5).reshape(3, b * n, heads, t, channels)
    if qk_norm:
        q, k = (F.layer_norm(part, (channels,), eps=1e-6) for part in (q, k))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=axis == "time")
    if axis == "space":
        return out.transpose(1, 2).reshape(b, t, n, heads * channels)
    return out.view(b, n, heads, t, channels).permute(0, 3, 1, 2, 4).reshape(b, t, n, heads * channels)


def area_attention(q: Tensor, k: Tensor, v: Tensor, sizes: list[int]) -> Tensor:
    """Of (tokens,heads,head_dim): areas of one size are a batch, others take their turns."""
    if len(set(sizes)) == 1:
        q, k, v = (x.unflatten(0, (len(sizes), -1)).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)
    areas = zip(*(x.split(sizes) for x in (q, k, v)), strict=True)
    attended = [
        F.scaled_dot_product_attention(*(part.transpose(0, 1)[None] for part in area))[0].transpose(0, 1)
        for area in areas
    ]
    return torch.cat(attended)


def rope_3d_tables(positions: Tensor, height: int, width: int, channels: int) -> tuple[Tensor, Tensor]:
    """(N,1,head_dim): a third of the channels each turns with frame, row and column, the rest by nothing."""
    part = 2 * (channels // 3 // 2)
    frequency = 10000.0 ** (-torch.arange(part // 2, dtype=torch.float64) / (part // 2))
    places = (positions // (height * width), positions // width % height, positions % width)
    angles = [(place[:, None] * frequency).repeat(1, 2) for place in places]
    rest = torch.zeros(len(positions), channels - 3 * part, dtype=torch.float64)
    table = torch.cat([*angles, rest], 1)[:, None]
    return table.cos().float(), table.sin().float()


def rope_3d(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turned = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
    return x * cos + turned * sin


def rope_register(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Of (B,N,heads,head_dim) by tables (N,head_dim)."""
    first, second, third, fourth = x.chunk(4, -1)
    turned = torch.cat([-second, first, -fourth, third], -1)
    return x * cos[:, None] + turned * sin[:, None]


def vector_quantize(x: Tensor, codebook: Tensor) -> Tensor:
    """The nearest codes: |c|^2 - 2 x.c orders them as distances do."""
    with torch.no_grad():
        indices = torch.addmm(codebook.square().sum(1), x, codebook.mT, alpha=-2).argmin(1)
    return F.embedding(indices, codebook)


def maskgit_step(
    logits: Tensor, tokens: Tensor, mask: Tensor, noise: Tensor, num_masked: int
) -> tuple[Tensor, Tensor]:
    """All samples have as many masked places. Temperature 1."""
    probability = logits.softmax(-1, dtype=torch.float32)
    cumulative = probability.cumsum(-1)
    drawn = torch.searchsorted(cumulative, noise[..., None], right=True).clamp_max(logits.shape[-1] - 1)
    confidence = probability.gather(-1, drawn).squeeze(-1).masked_fill(~mask, -1)
    best = confidence.topk(int(mask[0].sum()) - num_masked).indices
    return tokens.scatter(1, best, drawn.squeeze(-1).gather(1, best)), mask.scatter(1, best, False)


def norm_linear(x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, EPS), weight, bias)


def linear_residual(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    return residual + F.linear(x, weight, bias)


def norm_mlp_residual(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
) -> Tensor:
    return x + F.linear(F.gelu(norm_linear(x, norm_weight, norm_bias, weight1, bias1)), weight2, bias2)
