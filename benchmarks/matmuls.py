"""The bare matrix multiplications of a training step: what remains when all else costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Product:
    """`count` products (batch, m, k) x (batch, k, n) in a forward pass; a training step has three times as
    many multiplications: forward, by the input, by the weight."""

    count: int
    batch: int
    m: int
    k: int
    n: int

    def call(self, dtype: torch.dtype, backward: bool) -> Callable[[], object]:
        """All of them once, into memory that is there already."""
        shape = (self.batch,) if self.batch > 1 else ()
        a = torch.randn(*shape, self.m, self.k).to(dtype)
        b = torch.randn(*shape, self.k, self.n).to(dtype)
        c = torch.randn(*shape, self.m, self.n).to(dtype)  # the result, then its gradient
        of_a, of_b = (torch.zeros_like(x) for x in (a, b)) if backward else (a, b)

        def run() -> None:
            torch.matmul(a, b, out=c)
            if backward:
                torch.matmul(c, b.mT, out=of_a)
                torch.matmul(a.mT, c, out=of_b)

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


class Sum:
    """Products of which each shape takes its turn in measure.in_turns, beside the other candidates."""

    def __init__(self, products: list[Product], dtype: torch.dtype, backward: bool = True) -> None:
        self.counts: dict[Product, int] = {}
        for product in products:
            shape = replace(product, count=1)
            self.counts[shape] = self.counts.get(shape, 0) + product.count
        self.candidates = {str(shape): shape.call(dtype, backward) for shape in self.counts}

    def seconds(self, times: Mapping[str, float]) -> float | None:
        """The sum over all products of the time of each shape; None where there is no product."""
        return sum(count * times[str(shape)] for shape, count in self.counts.items()) or None
