"""What the matrix products of a video encoder allow: operations of full and of area attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from genie_cpp import nn

Grid = tuple[int, int, int]


def area_sizes(ids: Tensor, grid: Grid, spatial: int, temporal: int) -> list[list[int]]:
    """Tokens of each area, for each row of token ids (R,N)."""
    areas = nn.area_ids(ids, *grid, spatial, temporal)
    return [torch.bincount(row, minlength=spatial * temporal).tolist() for row in areas]


def stack_flops(
    segments: Iterable[Sequence[int]], width: int, layers: int, area_layers: int, mlp_ratio: float = 4.0
) -> float:
    """Operations of a forward pass; `segments` has the sizes of each sequence's areas.

    A layer takes (8 + 4 mlp_ratio) N D^2 in linear layers and 4 n^2 D in the attention of each segment of n.
    """
    total = 0.0
    for sizes in segments:
        tokens = sum(sizes)
        linear = (8 + 4 * mlp_ratio) * tokens * width**2
        full = linear + 4 * tokens**2 * width
        area = linear + 4 * sum(n * n for n in sizes) * width
        total += area_layers * area + (layers - area_layers) * full
    return total


def flop_bound(sizes: Sequence[int], width: int, area_layers: int, layers: int) -> float:
    """How many times faster an encoder can get by areas of these sizes."""
    return stack_flops([sizes], width, layers, 0) / stack_flops([sizes], width, layers, area_layers)
