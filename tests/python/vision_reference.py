"""V-JEPA 2's encoder and predictor in plain PyTorch with dense masks: what the C++ ones are compared with."""

from __future__ import annotations

import attention_references as references
import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
Grid = tuple[int, int, int]  # frames, rows, columns of tokens


def area_of(token: int, grid: Grid, spatial: int, temporal: int) -> int:
    """The definition, for one token."""
    frames, height, width = grid
    frame, row = token // (height * width), token % (height * width) // width
    band = min(frame // max(1, frames // temporal), temporal - 1)
    return band * spatial + min(row // max(1, height // spatial), spatial - 1)


def same_area(ids: Tensor, grid: Grid, splits: tuple[int, int]) -> Tensor:
    """bool (B,1,N,N): which pairs of tokens share an area."""
    area = torch.tensor([[area_of(int(token), grid, *splits) for token in row] for row in ids])
    return (area[:, :, None] == area[:, None, :])[:, None]


def block(
    weights: Weights, prefix: str, x: Tensor, ids: Tensor, heads: int, grid: Grid, visible: Tensor | None,
    residual_scale: float,
) -> Tensor:  # fmt: skip
    def linear(name: str, y: Tensor) -> Tensor:
        return F.linear(y, weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"])

    def norm(name: str, y: Tensor) -> Tensor:
        w, b = weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"]
        return F.layer_norm(y, y.shape[-1:], w, b, 1e-6)

    batch, tokens, channels = x.shape
    head_dim = channels // heads
    q, k, v = linear("attn.qkv", norm("norm1", x)).view(batch, tokens, 3, heads, head_dim).unbind(2)
    q, k = (references.rope_3d(y, ids, grid[1], grid[2]) for y in (q, k))
    q, k, v = (y.transpose(1, 2) for y in (q, k, v))
    out = references.attention(q, k, v, head_dim**-0.5, visible).transpose(1, 2).flatten(2)
    x = x + linear("attn.proj", out * residual_scale)
    return x + linear("mlp.fc2", F.gelu(linear("mlp.fc1", norm("norm2", x))))


def blocks(
    weights: Weights, prefix: str, x: Tensor, ids: Tensor, heads: int, grid: Grid, layers: range,
    splits: tuple[int, int] | None, scale: float,
) -> list[Tensor]:  # fmt: skip
    """What each block gives; those in `layers` attend inside areas."""
    outputs = []
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith(prefix))
    area = same_area(ids, grid, splits) if splits else None
    for i in range(depth):
        inside = splits is not None and i in layers
        x = block(
            weights, f"{prefix}{i}.", x, ids, heads, grid, area if inside else None, scale if inside else 1.0
        )
        outputs.append(x)
    return outputs


def final_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)


def encoder(
    weights: Weights, video: Tensor, masks: list[Tensor], heads: int,
    layers: range = range(0), splits: tuple[int, int] | None = None, scale: float = 1.0,
) -> list[Tensor]:  # fmt: skip
    """The normalised output of each layer, (masks*B,K,D)."""
    kernel = weights["patch_embed.proj.weight"]
    embedded = F.conv3d(video, kernel, weights["patch_embed.proj.bias"], stride=kernel.shape[2:])
    grid: Grid = (embedded.shape[2], embedded.shape[3], embedded.shape[4])
    x = embedded.flatten(2).transpose(1, 2)
    ids = torch.arange(x.shape[1]).expand(len(x), -1)
    if masks:
        x = torch.cat([x.gather(1, m[..., None].expand(-1, -1, x.shape[-1])) for m in masks])
        ids = torch.cat(masks)
    outputs = blocks(weights, "blocks.", x, ids, heads, grid, layers, splits, scale)
    return [final_norm(weights, "norm", y) for y in outputs]


def predictor(
    weights: Weights, x: Tensor, seen: Tensor, hidden: Tensor, heads: int, grid: Grid, mask_index: int,
    layers: range = range(0), splits: tuple[int, int] | None = None,
) -> Tensor:  # fmt: skip
    """As the original: context and mask tokens, sorted by position, blocks, unsorted, the mask tokens'."""
    context = F.linear(x, weights["predictor_embed.weight"], weights["predictor_embed.bias"])
    token = weights[f"mask_tokens.{mask_index}"].expand(len(x), hidden.shape[1], -1)
    tokens, ids = torch.cat([context, token], 1), torch.cat([seen, hidden], 1)
    order = ids.argsort(dim=1, stable=True)
    rows = torch.arange(len(x))[:, None]
    out = blocks(
        weights, "predictor_blocks.", tokens[rows, order], ids[rows, order], heads, grid, layers, splits, 1.0
    )[-1]
    out = final_norm(weights, "predictor_norm", out)[rows, order.argsort(dim=1)][:, seen.shape[1] :]
    return F.linear(out, weights["predictor_proj.weight"], weights["predictor_proj.bias"])
