"""The pieces of a pre-norm block in one op each, against torch's operations in float64."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import attention_references as references
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from genie_cpp import nn, ops

EPS = 1e-5


def norm_linear(x: Tensor, nw: Tensor, nb: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.linear(F.layer_norm(x, x.shape[-1:], nw, nb, EPS), w, b)


def norm_linear_without_bias(x: Tensor, nw: Tensor, nb: Tensor, w: Tensor) -> Tensor:
    return F.linear(F.layer_norm(x, x.shape[-1:], nw, nb, EPS), w)


def linear_residual(x: Tensor, w: Tensor, b: Tensor, residual: Tensor) -> Tensor:
    return residual + F.linear(x, w, b)


def mlp(x: Tensor, nw: Tensor, nb: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    hidden = F.linear(F.layer_norm(x, x.shape[-1:], nw, nb, EPS), w1, b1)
    return x + F.linear(F.gelu(hidden), w2, b2)


Case = tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[[int, int, int], list[tuple[int, ...]]]]
CASES: dict[str, Case] = {
    "norm_linear": (
        lambda x, nw, nb, w, b: ops.norm_linear(x, nw, nb, EPS, w, b),
        norm_linear,
        lambda n, d, h: [(2, n, d), (d,), (d,), (h, d), (h,)],
    ),
    "norm_linear_without_bias": (
        lambda x, nw, nb, w: ops.norm_linear(x, nw, nb, EPS, w),
        norm_linear_without_bias,
        lambda n, d, h: [(2, n, d), (d,), (d,), (h, d)],
    ),
    "linear_residual": (
        ops.linear_residual,
        linear_residual,
        lambda n, d, h: [(2, n, d), (h, d), (h,), (2, n, h)],
    ),
    "linear_residual_without_bias": (
        lambda x, w, residual: ops.linear_residual(x, w, None, residual),
        lambda x, w, residual: residual + F.linear(x, w),
        lambda n, d, h: [(2, n, d), (h, d), (2, n, h)],
    ),
    "norm_mlp_residual": (
        lambda x, nw, nb, w1, b1, w2, b2: ops.norm_mlp_residual(x, nw, nb, EPS, w1, b1, w2, b2),
        mlp,
        lambda n, d, h: [(2, n, d), (d,), (d,), (h, d), (h,), (d, h), (d,)],
    ),
}
# Rows below one piece of work and over several; enough that up to 35 threads take a share each, in pieces of
# different length; a hidden layer that is no multiple of a vector.
SIZES = [(1, 1, 1), (3, 8, 13), (1100, 16, 1024), (9001, 8, 13), (40, 48, 37)]


def inputs(shapes: list[tuple[int, ...]], seed: int) -> list[Tensor]:
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64)
        * (shape[-1] ** -0.5 if len(shape) == 2 else 1)
        for shape in shapes
    ]


def with_gradients(
    function: Callable[..., Tensor], tensors: list[Tensor], autocast: torch.dtype | None = None
) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    with torch.autocast(leaves[0].device.type, autocast) if autocast else nullcontext():
        out = function(*leaves)
    weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).cos().view(out.shape).to(out)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), leaves)]


def assert_as_accurate(
    ours: list[Tensor], torchs: list[Tensor], exact: list[Tensor], factor: float, floor: float
) -> None:
    """Each off by at most `factor` times what torch's is, and `floor` of the largest."""
    for mine, other, true in zip(ours, torchs, exact, strict=True):
        scale = true.abs().max().clamp_min(1e-30)
        error, torch_error = ((x.double().cpu() - true).abs().max() / scale for x in (mine, other))
        assert error <= factor * torch_error + floor


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "place",
    references.places(torch.float32, torch.float64, cuda=(torch.float32, torch.float64)),
    indirect=True,
)
def test_values_and_gradients_are_those_of_the_parts(
    name: str, sizes: tuple[int, int, int], place: references.Place
) -> None:
    fused, parts, shapes = CASES[name]
    tensors = inputs(shapes(*sizes), 3)
    exact = with_gradients(parts, tensors)
    low = [tensor.to(place.device, place.dtype) for tensor in tensors]
    floor = 2e-6 if place.dtype == torch.float32 else 1e-13
    assert_as_accurate(with_gradients(fused, low), with_gradients(parts, low), exact, 3, floor)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("place", references.places(torch.float32, cuda=(torch.float32,)), indirect=True)
def test_under_autocast_they_are_as_accurate_as_the_parts(
    name: str, sizes: tuple[int, int, int], place: references.Place
) -> None:
    fused, parts, shapes = CASES[name]
    tensors = inputs(shapes(*sizes), 10)
    exact = with_gradients(parts, tensors)
    low = [tensor.to(place.device, torch.float32) for tensor in tensors]
    ours, torchs = (with_gradients(function, low, torch.bfloat16) for function in (fused, parts))
    with torch.autocast(place.device, torch.bfloat16):
        inside = with_gradients(fused, low)
    assert all(torch.equal(a, b) for a, b in zip(inside, ours, strict=True))
    assert [tensor.dtype for tensor in ours] == [tensor.dtype for tensor in torchs]
    assert_as_accurate(ours, torchs, exact, 1.5, 4e-3)


def narrowed(name: str, tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """As autocast has them: what is multiplied in `dtype`, the rest in float32."""
    if name.startswith("linear_residual"):
        return [*(tensor.to(dtype) for tensor in tensors[:-1]), tensors[-1].float()]
    return [*(tensor.float() for tensor in tensors[:3]), *(tensor.to(dtype) for tensor in tensors[3:])]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CASES)
def test_narrow_factors_give_what_autocast_gives(name: str, dtype: torch.dtype) -> None:
    fused, _, shapes = CASES[name]
    tensors = inputs(shapes(30, 8, 13), 12)
    with torch.autocast("cpu", dtype):
        expected = fused(*(tensor.float() for tensor in tensors))
    assert torch.equal(fused(*narrowed(name, tensors, dtype)), expected)


@pytest.mark.parametrize("name", CASES)
def test_autocast_leaves_float64_alone(name: str) -> None:
    fused, _, shapes = CASES[name]
    tensors = inputs(shapes(3, 5, 7), 13)
    with torch.autocast("cpu", torch.bfloat16):
        out = fused(*tensors)
    assert out.dtype == torch.float64 and torch.equal(out, fused(*tensors))


@pytest.mark.parametrize("name", CASES)
def test_gradients_agree_with_differences(name: str) -> None:
    fused, _, shapes = CASES[name]
    tensors = [tensor.requires_grad_() for tensor in inputs(shapes(3, 5, 7), 4)]
    assert torch.autograd.gradcheck(fused, tensors)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("name", ["norm_linear", "linear_residual", "norm_mlp_residual"])
def test_torch_accepts_the_ops(name: str, narrow: bool) -> None:
    _, _, shapes = CASES[name]
    tensors = inputs(shapes(3, 5, 7), 5)
    tensors = [x.requires_grad_() for x in (narrowed(name, tensors, torch.bfloat16) if narrow else tensors)]
    arguments = tensors if name == "linear_residual" else [*tensors[:3], EPS, *tensors[3:]]
    torch.library.opcheck(getattr(torch.ops.genie, name).default, tuple(arguments))


def test_gelu_is_torchs_in_float32_far_out_too() -> None:
    """Through an identity: norm and second layer leave the activation alone."""
    values = torch.cat([torch.linspace(-30, 30, 4001), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e30])])
    x = torch.zeros(len(values), 1)
    ours = ops.norm_mlp_residual(
        x.t().contiguous(),
        torch.ones(len(values)),
        torch.zeros(len(values)),
        EPS,
        torch.zeros(len(values), len(values)),
        values,
        torch.eye(len(values)),
        torch.zeros(len(values)),
    )[0]
    true = F.gelu(values.double())
    assert ((ours.double() - true).abs() <= 2e-7 * values.abs().double().clamp_min(1)).all()


def test_not_a_number_goes_through() -> None:
    fused, _, shapes = CASES["norm_mlp_residual"]
    tensors = [tensor.float() for tensor in inputs(shapes(4, 8, 16), 6)]
    tensors[0][1, 2, 3] = float("nan")
    bad = fused(*tensors).isnan().any(-1)
    assert bad[1, 2] and bad.sum() == 1


def test_second_derivatives_are_refused() -> None:
    fused, _, shapes = CASES["norm_mlp_residual"]
    tensors = [tensor.requires_grad_() for tensor in inputs(shapes(2, 4, 8), 7)]
    (gradient,) = torch.autograd.grad(fused(*tensors).sum(), tensors[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward"):
        gradient.sum().backward()


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit_is_refused_by_name(name: str) -> None:
    fused, _, shapes = CASES[name]
    tensors = inputs(shapes(3, 5, 7), 8)
    for index in range(1, len(tensors)):
        for wrong, error in ((tensors[index][..., :-1], ValueError), (tensors[index].float(), TypeError)):
            with pytest.raises(error, match="must be|is "):
                fused(*tensors[:index], wrong, *tensors[index + 1 :])
    with pytest.raises(TypeError, match="float32 or float64"):
        fused(*(tensor.bfloat16() for tensor in tensors))
    narrow = narrowed(name, tensors, torch.bfloat16)
    alone = [tensor.dtype for tensor in narrow].count(torch.bfloat16) == 1  # and so free to be float16
    for index in range(1, len(narrow)):
        multiplied = narrow[index].dtype == torch.bfloat16
        if multiplied and alone:
            continue
        other = narrow[index].half() if multiplied else narrow[index].bfloat16()
        with pytest.raises(TypeError, match="must be"):
            fused(*narrow[:index], other, *narrow[index + 1 :])


def test_a_block_gives_the_same_by_parts() -> None:
    """Dropout, however small, makes a block compute its parts one after another."""
    torch.manual_seed(9)
    parts = nn.STTransformerBlock(32, 4, drop=1e-15).double().train()
    whole = nn.STTransformerBlock(32, 4).double().train()
    whole.load_state_dict(parts.state_dict())
    x = torch.randn(2, 3, 5, 32, dtype=torch.float64)
    assert (parts(x) - whole(x)).abs().max() <= 1e-12
    exact = whole(x)
    parts, whole = parts.float(), whole.float()
    with torch.autocast("cpu", torch.bfloat16):
        by_parts, at_once = ((block(x.float()) - exact).abs().max() for block in (parts, whole))
    assert at_once <= 1.5 * by_parts <= 0.1 * exact.abs().max()
