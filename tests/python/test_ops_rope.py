"""torch.ops.genie.rope_3d and rope_register against channel-by-channel references."""

from __future__ import annotations

import attention_references as references
import pytest
import torch

import genie_cpp  # noqa: F401  (registers the ops)

rope_3d = torch.ops.genie.rope_3d
rope_register = torch.ops.genie.rope_register


def grid_positions(batch: int, tokens: int, limit: int) -> torch.Tensor:
    """Unsorted ids, some of them twice, another set for each sample."""
    return torch.randint(0, limit, (batch, tokens))


def tables(
    tokens: int, channels: int, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    angle = torch.rand(tokens, channels, dtype=dtype) * 6
    return angle.cos(), angle.sin()


PLACES = references.places(torch.float64, torch.float32, torch.bfloat16)


@pytest.mark.parametrize("place", PLACES, indirect=True)
@pytest.mark.parametrize("channels", [4, 5, 6, 7, 12, 20, 64, 88, 128])
def test_rope_3d_agrees_with_the_formula(channels, place):
    references.seed(1)
    positions = grid_positions(2, 9, 6 * 3 * 5)
    for ids in (positions, positions[0]):
        references.assert_same_gradients(
            lambda x, ids=ids: rope_3d(x, ids.to(x.device), 3, 5),
            lambda x, ids=ids: references.rope_3d(x, ids, 3, 5),
            [torch.randn(2, 9, 2, 3, channels, dtype=torch.float64)],
            place.dtype,
            {torch.bfloat16: 1e-2}.get(place.dtype),
            place.device,
        )


@pytest.mark.parametrize("place", PLACES, indirect=True)
@pytest.mark.parametrize("channels", [4, 8, 12, 20, 64, 128])
def test_rope_register_agrees_with_the_formula(channels, place):
    references.seed(2)
    cos, sin = tables(7, channels)
    if place.dtype != torch.float64:
        cos, sin = cos.float(), sin.float()
    references.assert_same_gradients(
        lambda x: rope_register(x, cos.to(x.device), sin.to(x.device)),
        lambda x: references.rope_register(x, cos.double(), sin.double()),
        [torch.randn(3, 7, 2, channels, dtype=torch.float64)],
        place.dtype,
        {torch.bfloat16: 1e-2}.get(place.dtype),
        place.device,
    )


def test_gradient_is_the_transposed_map_not_its_inverse():
    references.seed(3)
    x = torch.randn(1, 5, 1, 20, dtype=torch.float64)
    y = torch.randn_like(x)
    ids = grid_positions(1, 5, 60)
    assert abs((rope_3d(x, ids, 4, 5) * y).sum() - (x * rope_3d(y, ids, 4, 5, True)).sum()) <= 1e-12
    assert (rope_3d(rope_3d(x, ids, 4, 5), ids, 4, 5, True) - x).abs().max() > 1e-3


def test_first_token_is_left_alone_and_the_rest_of_the_head_too():
    references.seed(4)
    x = torch.randn(1, 2, 1, 64)
    out = rope_3d(x, torch.tensor([0, 37]), 4, 5)
    assert torch.equal(out[:, 0], x[:, 0])
    assert torch.equal(out[..., 60:], x[..., 60:])


@pytest.mark.parametrize("channels,part", [(64, 20), (88, 28), (24, 8)])
def test_the_head_splits_into_time_row_and_column_and_a_rest(channels, part):
    references.seed(9)
    height, width = 6, 8
    x = torch.randn(1, 1, 1, channels, dtype=torch.float64)
    for axis, position in enumerate((height * width, width, 1)):  # one step in time, down, to the right
        turned = torch.ops.genie.rope_3d(x, torch.tensor([[position]]), height, width)
        changed = (turned != x).flatten().nonzero().flatten()
        assert changed.tolist() == list(range(axis * part, (axis + 1) * part))


def test_slice_of_a_projection_is_rotated_without_a_copy_changing_the_result():
    references.seed(5)
    qkv = torch.randn(2, 6, 3, 2, 12)
    ids = grid_positions(2, 6, 24)
    assert torch.equal(rope_3d(qkv[:, :, :2], ids, 2, 3), rope_3d(qkv[:, :, :2].contiguous(), ids, 2, 3))
    cos, sin = tables(6, 12, torch.float32)
    flipped = qkv.transpose(2, 3)
    assert torch.equal(rope_register(flipped, cos, sin), rope_register(flipped.contiguous(), cos, sin))


def test_gradcheck_and_double_backward():
    references.seed(6)
    x = torch.randn(2, 3, 2, 12, dtype=torch.float64, requires_grad=True)
    cos, sin = tables(3, 12)
    for function in (
        lambda y: rope_3d(y, torch.tensor([3, 0, 7]), 2, 2),
        lambda y: rope_register(y, cos, sin),
    ):
        assert torch.autograd.gradcheck(function, (x,))
        assert torch.autograd.gradgradcheck(function, (x,))


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(requires_grad):
    x = torch.randn(2, 3, 2, 12, requires_grad=requires_grad)
    torch.library.opcheck(rope_3d, (x, torch.tensor([3, 0, 7]), 2, 2))
    torch.library.opcheck(rope_3d, (x, grid_positions(2, 3, 9), 2, 2, True))
    torch.library.opcheck(rope_register, (x, *tables(3, 12, torch.float32)))


def test_compiles_as_one_graph():
    references.seed(7)
    x = torch.randn(2, 3, 2, 12, requires_grad=True)
    ids, (cos, sin) = torch.tensor([3, 0, 7]), tables(3, 12, torch.float32)

    def function(y: torch.Tensor) -> torch.Tensor:
        return rope_register(rope_3d(y, ids, 2, 2), cos, sin).sin()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(function(x).sum(), x)[0]
    assert torch.equal(torch.autograd.grad(compiled(x).sum(), x)[0], expected)


def test_empty_inputs_give_empty_outputs():
    for shape in [(0, 3, 2, 12), (2, 0, 2, 12), (2, 3, 0, 12)]:
        x = torch.zeros(shape)
        assert rope_3d(x, torch.zeros(shape[1], dtype=torch.int64), 2, 2).shape == shape
        assert rope_register(x, torch.zeros(shape[1], 12), torch.zeros(shape[1], 12)).shape == shape


@pytest.mark.parametrize(
    "arguments,error,message",
    [
        ((torch.zeros(2, 12), torch.zeros(2).long(), 2, 2), ValueError, r"x must be \(B, N, ..., head_dim\)"),
        ((torch.zeros(2, 3, 12), torch.zeros(2).long(), 2, 2), ValueError, r"\(B, N\) = \(2, 3\), got \[2\]"),
        ((torch.zeros(2, 3, 12), torch.zeros(3, 3).long(), 2, 2), ValueError, "positions must be"),
        ((torch.zeros(2, 3, 12), torch.zeros(3), 2, 2), TypeError, "positions must be int64"),
        ((torch.zeros(2, 3, 12), torch.zeros(3).long(), 0, 2), ValueError, "at least 1 x 1, got 0 x 2"),
        (
            (torch.zeros(2, 3, 12).long(), torch.zeros(3).long(), 1, 2),
            TypeError,
            "float32, bfloat16 or float64",
        ),
    ],
)
def test_rope_3d_refuses_wrong_input(arguments, error, message):
    with pytest.raises(error, match=message):
        rope_3d(*arguments)


@pytest.mark.parametrize(
    "arguments,error,message",
    [
        ((torch.zeros(2, 3, 6), torch.zeros(3, 6), torch.zeros(3, 6)), ValueError, "divisible by 4, got 6"),
        (
            (torch.zeros(2, 3, 8), torch.zeros(1, 8), torch.zeros(1, 8)),
            ValueError,
            r"= \(3, 8\), got \[1, 8\]",
        ),
        ((torch.zeros(2, 3, 8), torch.zeros(3, 8), torch.zeros(3, 4)), ValueError, "cos and sin must be"),
        ((torch.zeros(2, 3, 8).double(), torch.zeros(3, 8), torch.zeros(3, 8)), TypeError, "for x of Double"),
        (
            (torch.zeros(2, 3, 8), torch.zeros(3, 8, requires_grad=True), torch.zeros(3, 8)),
            NotImplementedError,
            "constants and have no gradient",
        ),
    ],
)
def test_rope_register_refuses_wrong_input(arguments, error, message):
    with pytest.raises(error, match=message):
        rope_register(*arguments)
