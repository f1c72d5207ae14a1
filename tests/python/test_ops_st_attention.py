"""torch.ops.genie.st_attention against a dense reference."""

from __future__ import annotations

import itertools

import attention_references as references
import pytest
import torch

import genie_cpp  # noqa: F401  (registers the ops)

op = torch.ops.genie.st_attention

# (B, T, N, heads, head_dim): one frame, one position, one token, head widths off the vector width, long axes,
# and lengths on both sides of where the CPU's kernel for short sequences ends.
SIZES = [
    (2, 3, 5, 2, 12),
    (1, 1, 7, 1, 16),
    (2, 17, 1, 3, 20),
    (1, 1, 1, 1, 8),
    (1, 70, 3, 2, 33),
    (1, 2, 130, 2, 40),
    (2, 16, 9, 4, 64),
    (1, 2, 3, 1, 128),
    (2, 31, 32, 3, 16),
    (1, 33, 2, 5, 32),
]
FLAGS = list(itertools.product(["space", "time"], [False, True], [False, True]))


def draw(size: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    batch, frames, positions, heads, channels = size
    return torch.randn(batch, frames, positions, 3, heads, channels, dtype=dtype)


@pytest.mark.parametrize("place", references.places(torch.float64, torch.float32), indirect=True)
@pytest.mark.parametrize("axis,causal,qk_norm", FLAGS)
@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_dense_attention(size, axis, causal, qk_norm, place):
    references.seed(1)
    references.assert_same_gradients(
        lambda qkv: op(qkv, axis, causal, qk_norm),
        lambda qkv: references.st_attention(qkv, axis, causal, qk_norm),
        [draw(size)],
        place.dtype,
        device=place.device,
    )


@pytest.mark.parametrize(
    "size,axis",
    [
        ((1, 16, 720, 8, 32), "time"),
        ((1, 16, 720, 8, 36), "time"),  # no whole vectors
        ((1, 180, 64, 8, 32), "space"),
    ],
)
def test_gradients_too_large_for_the_caches_follow_the_reference(size, axis):
    """On the CPU they are written past them."""
    references.seed(8)
    references.assert_same_gradients(
        lambda qkv: op(qkv, axis, True, True),
        lambda qkv: references.st_attention(qkv, axis, True, True),
        [draw(size)],
        torch.float32,
    )


@pytest.mark.parametrize("place", references.places(torch.float64), indirect=True)
@pytest.mark.parametrize("scale", [0.0, 0.3, -0.5, 9.0])
def test_scale_is_honoured(scale, place):
    references.seed(2)
    references.assert_same_gradients(
        lambda qkv: op(qkv, "time", True, True, scale),
        lambda qkv: references.st_attention(qkv, "time", True, True, scale),
        [draw((2, 5, 3, 2, 12))],
        place.dtype,
        device=place.device,
    )


@pytest.mark.parametrize("axis", ["space", "time"])
def test_bfloat16_is_as_accurate_as_sdpa(axis):
    references.seed(3)
    qkv = draw((2, 9, 12, 2, 32)).bfloat16()
    exact = references.st_attention(qkv.double(), axis)
    order = (0, 1, 3, 2, 4) if axis == "space" else (0, 2, 3, 1, 4)
    back = (0, 1, 3, 2, 4) if axis == "space" else (0, 3, 1, 2, 4)
    q, k, v = (x.permute(order) for x in qkv.unbind(3))
    torch_out = torch.nn.functional.scaled_dot_product_attention(q, k, v).permute(back).flatten(-2)
    error = (op(qkv, axis).double() - exact).abs().max()
    assert error <= 2 * (torch_out.double() - exact).abs().max()


def test_bfloat16_gradients_follow_the_reference():
    references.seed(4)
    references.assert_same_gradients(
        lambda qkv: op(qkv, "time", True, True),
        lambda qkv: references.st_attention(qkv, "time", True, True),
        [draw((1, 6, 4, 2, 16))],
        torch.bfloat16,
    )


@pytest.mark.parametrize("axis,causal,qk_norm", FLAGS)
def test_gradcheck(axis, causal, qk_norm):
    references.seed(5)
    qkv = draw((1, 3, 4, 2, 6)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: op(x, axis, causal, qk_norm), (qkv,))


def test_later_frames_do_not_change_earlier_ones_by_a_bit():
    references.seed(6)
    qkv = draw((2, 8, 5, 2, 16), torch.float32)
    changed = qkv.clone()
    changed[:, 5:] = torch.randn_like(changed[:, 5:]) * 10
    before, after = op(qkv, "time", True, True), op(changed, "time", True, True)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("frames", [16, 40])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_not_a_number_reaches_those_alone_that_see_it(frames, qk_norm):
    references.seed(9)
    qkv = draw((1, frames, 3, 2, 16), torch.float32)
    qkv[0, 5, 1, 1, 0, 3] = float("nan")  # a key of frame 5, position 1, head 0
    nan = op(qkv, "time", True, qk_norm).unflatten(-1, (2, 16)).isnan()
    assert nan[0, 5:, 1, 0].all()
    nan[0, 5:, 1, 0] = False
    assert not nan.any()


@pytest.mark.parametrize("size", [(1, 16, 3, 2, 32), (1, 50, 3, 2, 32)])
@pytest.mark.parametrize("scale", [0.3, -0.3])
def test_scores_of_any_size_pick_their_largest(size, scale):
    """Rounding of scores about 1e11 is thousands: exponentials must neither overflow nor all be lost."""
    references.seed(12)
    qkv = draw(size, torch.float32)
    qkv[..., :2, :, :] *= 1e5
    expected = references.st_attention(qkv.double(), "time", True, False, scale)
    difference = (op(qkv, "time", True, False, scale) - expected).abs().max()
    assert difference <= 1e-6
    (gradient,) = torch.autograd.grad(op(qkv.requires_grad_(), "time", True, False, scale).sum(), qkv)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("size", [(0, 3, 4, 2, 8), (2, 0, 4, 2, 8), (2, 3, 0, 2, 8), (2, 3, 4, 0, 8)])
@pytest.mark.parametrize("axis", ["space", "time"])
def test_empty_inputs_give_empty_outputs(size, axis):
    qkv = draw(size).requires_grad_()
    out = op(qkv, axis, True, True)
    assert out.shape == (*size[:3], size[3] * size[4])
    out.sum().backward()
    assert qkv.grad is not None and qkv.grad.shape == qkv.shape


def test_strided_input_is_read_as_it_is():
    references.seed(7)
    qkv = draw((2, 3, 4, 2, 8))
    strided = qkv.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    assert torch.equal(op(strided, "time"), op(qkv, "time"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(dtype, requires_grad):
    qkv = draw((1, 3, 4, 2, 8), dtype).requires_grad_(requires_grad)
    torch.library.opcheck(op, (qkv, "time", True, True))
    torch.library.opcheck(op, (qkv, "space"), {"scale": 0.1})
    backward = torch.ops.genie._st_attention_backward
    torch.library.opcheck(
        backward, (torch.randn(1, 3, 4, 16, dtype=dtype), qkv.detach(), "time", True, True, None)
    )


def test_compiles_as_one_graph():
    references.seed(8)
    qkv = draw((1, 3, 4, 2, 8), torch.float32).requires_grad_()
    compiled = torch.compile(
        lambda x: op(x * 2, "time", True, True).sin(), fullgraph=True, backend="aot_eager"
    )
    expected = torch.autograd.grad(op(qkv * 2, "time", True, True).sin().sum(), qkv)[0]
    assert torch.equal(torch.autograd.grad(compiled(qkv).sum(), qkv)[0], expected)


def test_double_backward_is_refused_clearly():
    qkv = draw((1, 2, 2, 1, 4)).requires_grad_()
    (gradient,) = torch.autograd.grad(op(qkv, "time").sin().sum(), qkv, create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward isn't supported"):
        gradient.sum().backward()


def test_autocast_computes_in_bfloat16():
    qkv = draw((1, 3, 4, 2, 8), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert op(qkv, "time").dtype == torch.bfloat16
        assert op(qkv.double(), "time").dtype == torch.float64


@pytest.mark.parametrize(
    "qkv,axis,error,message",
    [
        (torch.zeros(1, 2, 2, 3, 1, 4), "width", ValueError, "axis is 'space' or 'time', not 'width'"),
        (
            torch.zeros(1, 2, 2, 4, 1, 4),
            "time",
            ValueError,
            r"\(B, T, N, 3, heads, head_dim\), got \[1, 2, 2, 4, 1, 4\]",
        ),
        (torch.zeros(2, 2, 3, 4), "time", ValueError, "B, T, N, 3"),
        (torch.zeros(1, 2, 2, 3, 1, 0), "time", ValueError, "head_dim must be positive"),
        (torch.zeros(1, 2, 2, 3, 1, 4, dtype=torch.int64), "time", TypeError, "float32, bfloat16 or float64"),
        (
            torch.zeros(1, 2, 2, 3, 1, 4, dtype=torch.float16),
            "time",
            TypeError,
            "float32, bfloat16 or float64",
        ),
    ],
)
def test_wrong_input_is_refused(qkv, axis, error, message):
    with pytest.raises(error, match=message):
        op(qkv, axis)
    if qkv.dtype == torch.float16:  # which other devices take
        return
    with pytest.raises(error, match=message):
        op(qkv.to("meta"), axis)
