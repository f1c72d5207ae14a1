"""Independent references in plain PyTorch for the tests of ops and blocks, and small helpers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


class Place(NamedTuple):
    """Where and in what an operation computes."""

    device: str
    dtype: torch.dtype


def places(*cpu: torch.dtype, cuda: tuple[torch.dtype, ...] | None = None) -> list[Any]:
    """Parameters for the fixture `place`: the CPU in these dtypes, CUDA in `cuda` or all four."""
    everything = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    wanted = [(Place("cpu", dtype), ()) for dtype in cpu]
    wanted += [(Place("cuda", dtype), (pytest.mark.cuda,)) for dtype in (cuda or everything)]
    return [
        pytest.param(place, marks=marks, id=f"{place.device}-{str(place.dtype).split('.')[1]}")
        for place, marks in wanted
    ]


def cuda_lacks() -> str | None:
    """Why there is nothing to test on CUDA here; None where there is."""
    from genie_cpp import _C

    if not torch.cuda.is_available():
        return "needs an NVIDIA GPU"
    return None if _C.cuda_kernels_compiled() else "this build has no CUDA kernels"


def seed(number: int) -> None:
    """Fixes torch's generator and prints the seed."""
    torch.manual_seed(number)
    print(f"seed {number}")


def assert_close(
    actual: Tensor, expected: Tensor, tolerance: float, what: str = "result", floor: float = 0.01
) -> None:
    """The largest difference is within `tolerance` of the expected tensor's largest value; NaN fails.

    What is 0 but for rounding (a gradient by scores of a single key) is compared with `floor`.
    """
    assert actual.shape == expected.shape, f"{what}: {tuple(actual.shape)} instead of {tuple(expected.shape)}"
    if actual.numel() == 0:
        return
    scale = max(expected.detach().abs().max().item(), floor)
    exact = expected.detach().double().cpu()
    difference = (actual.detach().double().cpu() - exact).abs().max().item() / scale
    assert difference <= tolerance, f"{what}: relative difference {difference:.3g} > {tolerance:g}"


def assert_same_gradients(
    function: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    inputs: list[Tensor],
    dtype: torch.dtype,
    tolerance: float | None = None,
    device: str = "cpu",
) -> None:
    """Value and every gradient of `function` agree with those of `reference` in float64 on the CPU."""
    tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
    ours = [x.detach().to(device, dtype).requires_grad_() for x in inputs]
    exact = [x.detach().cpu().double().requires_grad_() for x in ours]
    result, expected = function(*ours), reference(*exact)
    assert result.dtype == dtype
    assert_close(result, expected, tolerance, "value")
    upstream = torch.randn_like(expected)
    gradients = torch.autograd.grad(result, ours, upstream.to(device, dtype))
    exact_gradients = torch.autograd.grad(expected, exact, upstream.to(dtype).double())
    for i, (gradient, exact_gradient) in enumerate(zip(gradients, exact_gradients, strict=True)):
        assert_close(gradient, exact_gradient, tolerance, f"gradient of input {i}")


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, visible: Tensor | None = None) -> Tensor:
    """Softmax attention of (..., tokens, head_dim) with a dense bool mask; rows that see nothing give 0."""
    scores = q @ k.transpose(-1, -2) * scale
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
        weights = torch.where(visible.any(-1, keepdim=True), scores.softmax(-1), torch.zeros_like(scores))
        return weights.nan_to_num(0.0) @ v
    return scores.softmax(-1) @ v


def st_attention(
    qkv: Tensor, axis: str, causal: bool = False, qk_norm: bool = False, scale: float | None = None
) -> Tensor:
    """Attention over one axis of (B, T, N, 3, heads, head_dim) by permuting and a dense mask."""
    batch, frames, positions, _, heads, channels = qkv.shape
    q, k, v = qkv.unbind(3)
    if qk_norm:
        q, k = (F.layer_norm(x, (channels,), eps=1e-6) for x in (q, k))
    order, back = (
        ((0, 1, 3, 2, 4), (0, 1, 3, 2, 4)) if axis == "space" else ((0, 2, 3, 1, 4), (0, 3, 1, 2, 4))
    )
    q, k, v = (x.permute(order) for x in (q, k, v))
    length = q.shape[-2]
    visible = torch.ones(length, length, dtype=torch.bool).tril() if causal else None
    out = attention(q, k, v, channels**-0.5 if scale is None else scale, visible)
    return out.permute(back).reshape(batch, frames, positions, heads * channels)


def rope_3d(x: Tensor, positions: Tensor, height: int, width: int) -> Tensor:
    """V-JEPA 2's rotation of (B, N, ..., d), channel by channel."""
    channels = x.shape[-1]
    part = 2 * ((channels // 3) // 2)
    places = [positions // (height * width), positions % (height * width) // width, positions % width]
    out = [x[..., c] for c in range(channels)]
    for axis, place in enumerate(places):
        place = place.double().reshape(*place.shape, *[1] * (x.dim() - 3))
        for c in range(part):
            angle = place * 10000.0 ** (-(c % (part // 2)) / (part // 2))
            own, partner = x[..., axis * part + c], x[..., axis * part + (c ^ 1)]
            sign = -1.0 if c % 2 == 0 else 1.0
            out[axis * part + c] = own * angle.cos() + sign * partner * angle.sin()
    return torch.stack(out, -1)


def rope_register(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """ViT-5's rotation of (B, N, ..., d) by tables of (N, d)."""
    first, second, third, fourth = x.chunk(4, -1)
    shape = (1, x.shape[1], *[1] * (x.dim() - 3), x.shape[-1])
    return x * cos.reshape(shape) + torch.cat([-second, first, -fourth, third], -1) * sin.reshape(shape)


def area_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    scale: float | None = None,
    frame_ids: Tensor | None = None,
) -> Tensor:
    """Attention of (total, heads, d) inside segments, as one dense masked attention over all tokens."""
    total, _, channels = q.shape
    segment = torch.bucketize(torch.arange(total), cu_seqlens[1:].long(), right=True)
    visible = segment[:, None] == segment[None, :]
    if frame_ids is not None:
        visible &= frame_ids[None, :] <= frame_ids[:, None]
    q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    return attention(q, k, v, channels**-0.5 if scale is None else scale, visible).transpose(0, 1)
