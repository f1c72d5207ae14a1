"""Each operation, forward and with its backward pass, at the shapes that Genie and ViT-L use: ours, plain
eager PyTorch, the bare matrix products. Both must agree before anything is timed. Freed memory is kept, as
our trainer does, so that nobody waits for fresh pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import area_attention
import matmuls
import measure
import plain_ops
import torch
from torch import Tensor

from genie_cpp import ops
from genie_cpp.training import keep_freed_memory


@dataclass(frozen=True)
class Shapes:
    """Of Genie at batch 4 (video, quantizer, blocks), of its generation (places), of ViT-L (tokens)."""

    batch: int = 4
    frames: int = 16
    places: int = 256
    heads: int = 8
    head_dim: int = 32
    codes: int = 1024
    code_dim: int = 32
    tokens: int = 2048
    grid: int = 16
    vit_heads: int = 16
    vit_head_dim: int = 64

    @property
    def rows(self) -> int:
        return self.batch * self.frames * self.places

    @property
    def dim(self) -> int:
        return self.heads * self.head_dim


@dataclass
class Case:
    name: str
    shape: str
    ours: Callable[..., Any]
    plain: Callable[..., Any]
    inputs: list[Tensor]  # those that have gradients where `differentiable`
    products: list[matmuls.Product] = field(default_factory=list)
    differentiable: bool = True
    products_backward: bool = True  # whether the backward pass has twice as many again
    autocast: bool = False  # how it computes in bfloat16; else its inputs are that
    tolerance: float = 1e-4  # of the difference's norm, in float32


def st_attention_cases(s: Shapes) -> Iterator[Case]:
    for axis in ("space", "time"):
        sequences, length = (s.frames, s.places) if axis == "space" else (s.places, s.frames)
        count = s.batch * sequences * s.heads
        for qk_norm in (False, True):
            yield Case(
                f"st_attention {axis}{' qk_norm' if qk_norm else ''}",
                f"({s.batch},{s.frames},{s.places},{s.heads}x{s.head_dim})",
                partial(ops.st_attention, axis=axis, causal=axis == "time", qk_norm=qk_norm),
                partial(plain_ops.st_attention, axis=axis, qk_norm=qk_norm),
                [torch.randn(s.batch, s.frames, s.places, 3, s.heads, s.head_dim)],
                [
                    matmuls.Product(1, count, length, s.head_dim, length),
                    matmuls.Product(1, count, length, length, s.head_dim),
                ],
            )


def area_attention_cases(s: Shapes) -> Iterator[Case]:
    for uneven in (False, True):
        sizes = area_attention.area_sizes(s.tokens, uneven)
        offsets = torch.tensor([0, *sizes]).cumsum(0).int()
        products = []
        for size in sizes:
            products.append(matmuls.Product(1, s.vit_heads, size, s.vit_head_dim, size))
            products.append(matmuls.Product(1, s.vit_heads, size, size, s.vit_head_dim))
        yield Case(
            f"area_attention {'uneven' if uneven else 'even'}",
            f"({s.tokens},{s.vit_heads}x{s.vit_head_dim}) in {len(sizes)}",
            partial(ops.area_attention, cu_seqlens=offsets, max_seqlen=max(sizes)),
            partial(plain_ops.area_attention, sizes=sizes),
            [torch.randn(s.tokens, s.vit_heads, s.vit_head_dim) for _ in range(3)],
            products,
        )


def rope_cases(s: Shapes) -> Iterator[Case]:
    shape = f"(1,{s.tokens},{s.vit_heads}x{s.vit_head_dim})"
    x = torch.randn(1, s.tokens, s.vit_heads, s.vit_head_dim)
    ids = torch.arange(s.tokens)
    tables = plain_ops.rope_3d_tables(ids, s.grid, s.grid, s.vit_head_dim)
    yield Case(
        "rope_3d",
        shape,
        partial(ops.rope_3d, positions=ids, height=s.grid, width=s.grid),
        lambda x: plain_ops.rope_3d(x, *(table.to(x.dtype) for table in tables)),
        [x],
    )
    angles = torch.rand(s.tokens, s.vit_head_dim) * 6
    cos, sin = angles.cos(), angles.sin()
    yield Case(
        "rope_register",
        shape,
        partial(ops.rope_register, cos=cos, sin=sin),
        lambda x: plain_ops.rope_register(x, cos.to(x.dtype), sin.to(x.dtype)),
        [x.clone()],
    )


def quantizer_case(s: Shapes) -> Case:
    codebook = torch.randn(s.codes, s.code_dim)
    x = torch.randn(s.rows, s.code_dim).bfloat16().float()  # no type rounds it further
    return Case(
        "vector_quantize",
        f"({s.rows},{s.code_dim}), {s.codes} codes",
        lambda codebook: ops.vector_quantize(x.to(codebook.dtype), codebook)[0],
        lambda codebook: plain_ops.vector_quantize(x.to(codebook.dtype), codebook),
        [codebook],
        [matmuls.linear(1, s.rows, s.code_dim, s.codes)],
        products_backward=False,
        tolerance=5e-2,  # codes at nearly the same distance are told apart by ours alone
    )


def maskgit_case(s: Shapes) -> Case:
    tokens = torch.zeros(1, s.places, dtype=torch.int64)
    mask = torch.rand(1, s.places) < 0.75
    noise, left = torch.rand(1, s.places), int(mask.sum()) // 2
    return Case(
        "maskgit_step",
        f"(1,{s.places},{s.codes})",
        lambda logits: ops.maskgit_step(logits, tokens, mask, noise, noise, left),
        lambda logits: plain_ops.maskgit_step(logits, tokens, mask, noise, left),
        [torch.randn(1, s.places, s.codes) * 3],
        differentiable=False,
        tolerance=5e-2,  # noise between two codes to the last bit
    )


def block_cases(s: Shapes) -> Iterator[Case]:
    def weight(out: int, inputs: int) -> Tensor:
        return torch.randn(out, inputs) * inputs**-0.5

    dim, x = s.dim, torch.randn(s.rows, s.dim)
    norm = [torch.rand(dim) + 0.5, torch.randn(dim)]
    yield Case(
        "norm_linear",
        f"({s.rows},{dim}) to {3 * dim}",
        lambda x, nw, nb, w, b: ops.norm_linear(x, nw, nb, plain_ops.EPS, w, b),
        plain_ops.norm_linear,
        [x, *norm, weight(3 * dim, dim), torch.randn(3 * dim)],
        [matmuls.linear(1, s.rows, dim, 3 * dim)],
        autocast=True,
    )
    yield Case(
        "linear_residual",
        f"({s.rows},{dim}) to {dim}",
        ops.linear_residual,
        plain_ops.linear_residual,
        [x.clone(), weight(dim, dim), torch.randn(dim), torch.randn(s.rows, dim)],
        [matmuls.linear(1, s.rows, dim, dim)],
        autocast=True,
    )
    hidden = 4 * dim
    yield Case(
        "norm_mlp_residual",
        f"({s.rows},{dim}), hidden {hidden}",
        lambda x, nw, nb, *weights: ops.norm_mlp_residual(x, nw, nb, plain_ops.EPS, *weights),
        plain_ops.norm_mlp_residual,
        [x.clone(), *norm, weight(hidden, dim), torch.randn(hidden), weight(dim, hidden), torch.randn(dim)],
        [matmuls.linear(1, s.rows, dim, hidden), matmuls.linear(1, s.rows, hidden, dim)],
        autocast=True,
    )


def cases(s: Shapes) -> Iterator[Case]:
    torch.manual_seed(0)
    yield from st_attention_cases(s)
    yield from area_attention_cases(s)
    yield from rope_cases(s)
    yield quantizer_case(s)
    yield maskgit_case(s)
    yield from block_cases(s)


def forward_and_backward(function: Callable[..., Any], inputs: list[Tensor]) -> Callable[[], list[Tensor]]:
    """A call that gives the result and the gradients of all inputs."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    with torch.no_grad():
        out = function(*inputs)
        upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out.dtype)

    def call() -> list[Tensor]:
        out = function(*inputs)
        return [out, *torch.autograd.grad(out, inputs, upstream)]

    return call


def forward(function: Callable[..., Any], inputs: list[Tensor]) -> Callable[[], list[Tensor]]:
    @torch.no_grad()
    def call() -> list[Tensor]:
        out = function(*inputs)
        return list(out) if isinstance(out, tuple) else [out]

    return call


def check_equal(name: str, ours: list[Tensor], plain: list[Tensor], tolerance: float) -> None:
    """Raises AssertionError where results or gradients are not the same."""
    for i, (a, b) in enumerate(zip(ours, plain, strict=True)):
        difference = (a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-12)
        assert difference <= tolerance, f"{name}: tensor {i} differs by {difference:.3g} of its norm"


def rows(shapes: Shapes, dtypes: Sequence[str], rounds: int) -> Iterator[measure.Row]:
    """A row for each operation, type and pass."""
    keep_freed_memory()
    try:
        for case in cases(shapes):
            yield from case_rows(case, dtypes, rounds)
    finally:
        keep_freed_memory(False)


def in_type(
    dtype: torch.dtype, function: Callable[..., Any], case: Case, rounded_to: torch.dtype
) -> tuple[Callable[..., Any], list[Tensor]]:
    """`function`, one of the case's, and its inputs, to compute in `dtype`."""
    if not case.autocast:
        return function, [x.to(rounded_to).to(dtype) for x in case.inputs]
    if dtype == torch.float32:
        return function, case.inputs
    return torch.autocast("cpu", dtype)(function), case.inputs


def case_rows(case: Case, dtypes: Sequence[str], rounds: int) -> Iterator[measure.Row]:
    passes = {"forward": forward, "forward + backward": forward_and_backward}
    if not case.differentiable:
        del passes["forward + backward"]
    for dtype in (getattr(torch, name) for name in dtypes):
        beside = measure.yardstick(dtype)
        tolerance = case.tolerance if dtype == torch.float32 else 5e-2
        for name, make in passes.items():
            ours = make(*in_type(dtype, case.ours, case, dtype))
            plain = make(*in_type(beside, case.plain, case, dtype))
            check_equal(case.name, ours(), plain(), tolerance)
            bare = matmuls.Sum(case.products, beside, name != "forward" and case.products_backward)
            time = measure.in_turns({"ours": ours, "plain": plain, **bare.candidates}, rounds)
            yield measure.row(
                f"ops/{case.name}, {name}",
                measure.name_of(dtype),
                time["ours"],
                time["plain"],
                bare.seconds(time),
                beside=measure.name_of(beside),
                shape=case.shape,
            )
