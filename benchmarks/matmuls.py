"""The bare matrix multiplications of a training step: what remains when all else costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from measure import in_turns


@dataclass(frozen=True)
class Product:
    """`count` products (batch, m, k) x (batch, k, n) in a forward pass; a training step has three times as
    many multiplications: forward, by the input, by the weight."""

    count: int
    batch: int
    m: int
    k: int
    n: int

    def calls(self, dtype: torch.dtype, backward: bool) -> Callable[[], object]:
        shape = (self.batch,) if self.batch > 1 else ()
        a = torch.randn(*shape, self.m, self.k).to(dtype)
        b = torch.randn(*shape, self.k, self.n).to(dtype)
        g = torch.randn(*shape, self.m, self.n).to(dtype)

        def run() -> None:
            torch.matmul(a, b)
            if backward:
                torch.matmul(g, b.mT)
                torch.matmul(a.mT, g)

        return run


def linear(count: int, rows: int, inputs: int, outputs: int) -> Product:
    return Product(count, 1, rows, inputs, outputs)


def transformer(depth: int, batch: int, frames: int, tokens: int, dim: int, heads: int) -> list[Product]:
    """An ST-transformer: projections, MLP, and both attentions' products of scores and values. Causal
    attention over time is counted whole, as a bare product computes it."""
    rows, head = batch * frames * tokens, dim // heads
    space, time = batch * frames * heads, batch * tokens * heads
    return [
        linear(2 * depth, rows, dim, 3 * dim),
        linear(2 * depth, rows, dim, dim),
        linear(depth, rows, dim, 4 * dim),
        linear(depth, rows, 4 * dim, dim),
        Product(depth, space, tokens, head, tokens),
        Product(depth, space, tokens, tokens, head),
        Product(depth, time, frames, head, frames),
        Product(depth, time, frames, frames, head),
    ]


def seconds(products: list[Product], dtype: torch.dtype, rounds: int, backward: bool = True) -> float:
    """The sum over all products of the least time of each shape."""
    total = 0.0
    for product in products:
        run = product.calls(dtype, backward)
        total += product.count * in_turns({"products": run}, rounds)["products"]
    return total
