"""RoPEAttention and RoPEAreaAttention against a dense reference in plain PyTorch."""

from __future__ import annotations

import attention_references as references
import pytest
import torch
from torch import Tensor

from genie_cpp import nn


def reference(
    weights: dict[str, Tensor],
    x: Tensor,
    heads: int,
    ids: Tensor,
    height: int,
    width: int,
    visible: Tensor | None = None,
    residual_scale: float = 1.0,
) -> Tensor:
    batch, tokens, channels = x.shape
    qkv = torch.nn.functional.linear(x, weights["qkv.weight"], weights.get("qkv.bias"))
    q, k, v = qkv.view(batch, tokens, 3, heads, channels // heads).unbind(2)
    q, k = (references.rope_3d(y, ids, height, width) for y in (q, k))
    q, k, v = (y.transpose(1, 2) for y in (q, k, v))
    out = references.attention(q, k, v, (channels // heads) ** -0.5, visible).transpose(1, 2).flatten(2)
    return torch.nn.functional.linear(out * residual_scale, weights["proj.weight"], weights["proj.bias"])


def areas(ids: Tensor, frames: int, height: int, width: int, spatial: int, temporal: int) -> Tensor:
    """The definition, token by token."""
    result = []
    for token in ids.flatten().tolist():
        frame, row = token // (height * width), token % (height * width) // width
        at = min(frame // max(1, frames // temporal), temporal - 1)
        result.append(at * spatial + min(row // max(1, height // spatial), spatial - 1))
    return torch.tensor(result, dtype=torch.int64).view(ids.shape)


def same_area(ids: Tensor, *grid: int) -> Tensor:
    area = areas(ids, *grid)
    return (area[:, :, None] == area[:, None, :])[:, None]


def check_gradients(
    module: nn.Module, exact: nn.Module | None, function, x: Tensor, dtype: torch.dtype
) -> None:
    """Value and gradients by x and by every parameter agree with `function(weights, x)` in float64."""
    module = module.to(dtype)
    weights = {name: p.detach().double().requires_grad_() for name, p in module.named_parameters()}
    ours = x.to(dtype).requires_grad_()
    other = ours.detach().double().requires_grad_()
    out, expected = module(ours), function(weights, other)
    tolerance = references.TOLERANCE[dtype]
    references.assert_close(out, expected, tolerance)
    upstream = torch.randn_like(expected)
    names = list(weights)
    parameters = dict(module.named_parameters())
    grads = torch.autograd.grad(out, [ours, *(parameters[n] for n in names)], upstream.to(dtype))
    exact_grads = torch.autograd.grad(expected, [other, *weights.values()], upstream.to(dtype).double())
    for name, ours_, theirs in zip(["x", *names], grads, exact_grads, strict=True):
        references.assert_close(ours_, theirs, tolerance, f"gradient of {name}")


class Call(torch.nn.Module):
    """A block with the further arguments of its forward."""

    def __init__(self, block: nn.Module, **arguments: object) -> None:
        super().__init__()
        self.block, self.arguments = block, arguments

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x, **self.arguments)

    def named_parameters(self, *args, **kwargs):  # without the prefix, as the references name weights
        return self.block.named_parameters(*args, **kwargs)


GRIDS = [(1, 2, 3), (3, 1, 2), (5, 3, 2), (4, 4, 4), (2, 5, 1)]
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


@dtypes
@pytest.mark.parametrize("use_sdpa", [True, False])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("head_dim", [4, 12, 20])
def test_full_grid_agrees_with_the_reference(grid, head_dim, use_sdpa, dtype):
    references.seed(1)
    frames, height, width = grid
    tokens = frames * height * width
    block = nn.RoPEAttention(2 * head_dim, 2, qkv_bias=True, use_sdpa=use_sdpa)
    call = Call(block, T=frames, H_patches=height, W_patches=width)
    ids = torch.arange(tokens).expand(2, -1)
    check_gradients(
        call,
        None,
        lambda w, x: reference(w, x, 2, ids, height, width),
        torch.randn(2, tokens, 2 * head_dim),
        dtype,
    )


def random_ids(batch: int, tokens: int, limit: int) -> Tensor:
    """Unsorted, with repetitions, another set for each sample."""
    return torch.randint(0, limit, (batch, tokens))


@dtypes
@pytest.mark.parametrize("use_sdpa", [True, False])
@pytest.mark.parametrize("splits", [(1, 1), (2, 2), (3, 1), (1, 4), (9, 7)])
@pytest.mark.parametrize("tokens", [1, 2, 23])
def test_areas_of_masked_tokens_agree_with_dense_masks(tokens, splits, use_sdpa, dtype):
    references.seed(2)
    frames, height, width = 5, 4, 3
    ids = random_ids(3, tokens, frames * height * width)
    block = nn.RoPEAreaAttention(
        24, 2, spatial_splits=splits[0], temporal_splits=splits[1], residual_scale=0.7, use_sdpa=use_sdpa
    )
    call = Call(block, mask=ids, T=frames, H_patches=height, W_patches=width)
    visible = same_area(ids, frames, height, width, *splits)
    check_gradients(
        call,
        None,
        lambda w, x: reference(w, x, 2, ids, height, width, visible, 0.7),
        torch.randn(3, tokens, 24),
        dtype,
    )


@pytest.mark.parametrize("grid", [(1, 1, 1), (5, 4, 3), (2, 7, 1), (16, 9, 16)])
@pytest.mark.parametrize("splits", [(1, 1), (2, 2), (3, 5), (20, 30)])
def test_area_ids_follow_the_definition(grid, splits):
    references.seed(3)
    frames, height, width = grid
    ids = random_ids(2, 50, frames * height * width)
    assert torch.equal(nn.area_ids(ids, *grid, *splits), areas(ids, *grid, *splits))
    latest = int(ids.max()) // (height * width) + 1
    assert torch.equal(
        nn.area_ids(ids, None, height, width, *splits), areas(ids, latest, height, width, *splits)
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "arguments", [{}, {"is_causal": True}, {"use_sdpa": False}, {"qk_scale": 0.2}], ids=str
)
def test_one_area_equals_rope_attention(arguments, training):
    references.seed(4)
    full = nn.RoPEAttention(32, 2, **arguments).train(training)
    area = nn.RoPEAreaAttention(32, 2, spatial_splits=1, temporal_splits=1, **arguments).train(training)
    area.load_state_dict(full.state_dict(), strict=True)
    x, ids = torch.randn(2, 17, 32), random_ids(2, 17, 60)
    grid = {"mask": ids, "T": 5, "H_patches": 4, "W_patches": 3}
    assert torch.equal(area(x, **grid), full(x, **grid))


def test_state_dicts_pass_between_full_and_area_attention_bit_equal():
    full = nn.RoPEAttention(24, 2, qkv_bias=True)
    area = nn.RoPEAreaAttention(24, 2, qkv_bias=True)
    area.load_state_dict(full.state_dict(), strict=True)
    back = nn.RoPEAttention(24, 2, qkv_bias=True)
    back.load_state_dict(area.state_dict(), strict=True)
    for name, value in full.state_dict().items():
        assert torch.equal(back.state_dict()[name], value)


@pytest.mark.parametrize("use_sdpa", [True, False])
def test_perturbing_one_area_leaves_the_others_bit_identical(use_sdpa):
    references.seed(5)
    block = nn.RoPEAreaAttention(32, 2, use_sdpa=use_sdpa)
    x, ids = torch.randn(2, 40, 32), random_ids(2, 40, 4 * 4 * 4)
    area = nn.area_ids(ids, 4, 4, 4)
    grid = {"mask": ids, "T": 4, "H_patches": 4, "W_patches": 4}
    before = block(x, **grid)
    changed = torch.where((area == 2)[..., None], torch.randn_like(x) * 10, x)
    after = block(changed, **grid)
    assert torch.equal(before[area != 2], after[area != 2])
    assert not torch.equal(before[area == 2], after[area == 2])


@dtypes
@pytest.mark.parametrize("use_sdpa", [True, False])
@pytest.mark.parametrize("cls", [nn.RoPEAttention, nn.RoPEAreaAttention])
def test_causal_attention_agrees_with_the_reference(cls, use_sdpa, dtype):
    references.seed(6)
    ids = random_ids(2, 11, 60)
    visible = torch.ones(11, 11, dtype=torch.bool).tril()
    if cls is nn.RoPEAreaAttention:
        visible = visible & same_area(ids, 5, 4, 3, 2, 2)
    call = Call(cls(24, 2, is_causal=True, use_sdpa=use_sdpa), mask=ids, T=5, H_patches=4, W_patches=3)
    check_gradients(
        call, None, lambda w, x: reference(w, x, 2, ids, 4, 3, visible), torch.randn(2, 11, 24), dtype
    )


@dtypes
@pytest.mark.parametrize("use_sdpa", [True, False])
@pytest.mark.parametrize("cls", [nn.RoPEAttention, nn.RoPEAreaAttention])
def test_attention_masks_with_rows_that_see_nothing(cls, use_sdpa, dtype):
    references.seed(7)
    ids = random_ids(2, 9, 60)
    mask = torch.rand(2, 2, 9, 9) < 0.5
    mask[0, 1, 3] = False
    mask[1, :, 5] = False
    visible = mask & same_area(ids, 5, 4, 3, 2, 2) if cls is nn.RoPEAreaAttention else mask
    for given in (mask, torch.zeros(2, 2, 9, 9, dtype=dtype).masked_fill(~mask, float("-inf"))):
        call = Call(cls(24, 2, use_sdpa=use_sdpa), mask=ids, attn_mask=given, T=5, H_patches=4, W_patches=3)
        check_gradients(
            call, None, lambda w, x: reference(w, x, 2, ids, 4, 3, visible), torch.randn(2, 9, 24), dtype
        )


def test_dropout_acts_in_training_only_and_keeps_the_mean():
    references.seed(8)
    block = nn.RoPEAttention(16, 2, attn_drop=0.3, grid_size=2)
    x = torch.randn(1, 8, 16)
    exact = nn.RoPEAttention(16, 2, grid_size=2)
    exact.load_state_dict(block.state_dict())
    mean = torch.stack([block(x) for _ in range(3000)]).mean(0)
    references.assert_close(mean, exact(x), 0.05)
    block.eval()
    assert torch.equal(block(x), exact(x))


def test_bfloat16_is_as_accurate_as_torch():
    references.seed(9)
    block = nn.RoPEAttention(32, 2, grid_size=2)
    weights = {name: p.detach().bfloat16() for name, p in block.named_parameters()}
    x, ids = torch.randn(1, 8, 32).bfloat16(), torch.arange(8).expand(1, -1)
    exact = reference({n: w.double() for n, w in weights.items()}, x.double(), 2, ids, 2, 2)
    qkv = torch.nn.functional.linear(x, weights["qkv.weight"]).view(1, 8, 3, 2, 16)
    q, k = (references.rope_3d(y.double(), ids, 2, 2).bfloat16().transpose(1, 2) for y in qkv.unbind(2)[:2])
    out = torch.nn.functional.scaled_dot_product_attention(q, k, qkv[:, :, 2].transpose(1, 2))
    theirs = torch.nn.functional.linear(
        out.transpose(1, 2).flatten(2), weights["proj.weight"], weights["proj.bias"]
    )
    error = (block.bfloat16()(x).double() - exact).abs().max()
    assert error <= 2 * (theirs.double() - exact).abs().max()


def test_empty_batches_and_no_tokens():
    for cls in (nn.RoPEAttention, nn.RoPEAreaAttention):
        block = cls(16, 2)
        for shape in ((0, 4, 16), (2, 0, 16)):
            out = block(torch.zeros(shape), torch.zeros(shape[:2], dtype=torch.int64), None, 2, 2, 2)
            assert out.shape == shape


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"dim": 10, "num_heads": 3}, "dim=10 is not divisible by num_heads=3"),
        ({"dim": 0}, "at least 1, got dim=0"),
        ({"dim": 8, "num_heads": -1}, "num_heads=-1"),
        ({"dim": 8, "grid_size": 0}, "grid_size must be at least 1, got 0"),
        ({"dim": 8, "attn_drop": 1.5}, r"attn_drop must be in \[0, 1\), got 1.5"),
        ({"dim": 8, "proj_drop": float("nan")}, r"proj_drop must be in \[0, 1\), got nan"),
    ],
)
def test_wrong_construction_is_a_value_error(arguments, message):
    for cls in (nn.RoPEAttention, nn.RoPEAreaAttention):
        with pytest.raises(ValueError, match=message):
            cls(**arguments)


def test_wrong_splits_are_a_value_error():
    with pytest.raises(ValueError, match="at most 1024, got 0 and 2"):
        nn.RoPEAreaAttention(16, 2, spatial_splits=0)


X = torch.zeros(2, 8, 16)
IDS = torch.zeros(2, 8, dtype=torch.int64)


@pytest.mark.parametrize(
    "arguments,error,message",
    [
        ({"x": X[0]}, ValueError, r"x \(B,N,16\), got \[8, 16\]"),
        ({"x": X[..., :8]}, ValueError, r"got \[2, 8, 8\]"),
        ({"x": X}, ValueError, "8 tokens are not T x H x W = 0 x 14 x 14"),
        (
            {"x": X, "T": 3, "H_patches": 2, "W_patches": 2},
            ValueError,
            "8 tokens are not T x H x W = 3 x 2 x 2",
        ),
        ({"x": X, "H_patches": 2}, ValueError, "H_patches and W_patches belong together"),
        ({"x": X, "mask": IDS, "H_patches": 0, "W_patches": 2}, ValueError, "at least 1, got 1, 0, 2"),
        ({"x": X, "mask": IDS[:, :5]}, ValueError, r"mask must be \(B,N\) = \(2,8\), got \[2, 5\]"),
        ({"x": X, "mask": IDS[0]}, ValueError, r"mask must be \(B,N\)"),
        (
            {"x": X, "mask": torch.full((2, 8), float("nan"))},
            TypeError,
            "mask must hold int64 token ids, got Float",
        ),
        ({"x": X, "mask": IDS.bool()}, TypeError, "mask must hold int64 token ids, got Bool"),
        ({"x": X, "mask": IDS - 1}, ValueError, "must not be negative, got -1"),
        (
            {"x": X, "mask": IDS + 99, "T": 2, "H_patches": 2, "W_patches": 2},
            ValueError,
            "token id 99 is outside the grid of 2 x 2 x 2",
        ),
        ({"x": X, "mask": IDS.to("meta")}, ValueError, "mask on meta"),
        (
            {"x": X, "mask": IDS, "attn_mask": IDS},
            TypeError,
            "attn_mask must be bool or floating-point, got Long",
        ),
        (
            {"x": X, "mask": IDS, "attn_mask": torch.ones(3, 8, dtype=torch.bool)},
            ValueError,
            r"broadcast to \(B,heads,N,N\) = \(2,2,8,8\), got \[3, 8\]",
        ),
        ({"x": X.double(), "mask": IDS}, TypeError, "the module Float"),
        ({"x": X.long(), "mask": IDS}, TypeError, "the module Float"),
    ],
)
def test_wrong_input_is_refused(arguments, error, message):
    for cls in (nn.RoPEAttention, nn.RoPEAreaAttention):
        with pytest.raises(error, match=message):
            cls(16, 2)(**arguments)


def test_nan_attention_mask_gives_nan_not_a_crash():
    out = nn.RoPEAttention(16, 2)(X, IDS, torch.full((8, 8), float("nan")))
    assert out.isnan().all()


@pytest.mark.parametrize("side", [0, -1, 2**32, 2**40])
def test_grids_whose_size_cannot_be_are_refused_and_never_end_the_process(side):
    ids = torch.arange(4).expand(1, -1)
    for cls in (nn.RoPEAttention, nn.RoPEAreaAttention):
        block = cls(16, 2, grid_size=2)
        with pytest.raises(ValueError, match="H_patches"):
            block(torch.randn(1, 4, 16), mask=ids, H_patches=side, W_patches=side)
    with pytest.raises(ValueError, match="grid"):
        torch.ops.genie.rope_3d(torch.randn(1, 4, 8), torch.arange(4), side, side)
    for arguments in ((3, side, 2, 2, 2), (3, 2, side, 2, 2), (3, 2, 2, side, 2), (3, 2, 2, 2, side)):
        with pytest.raises(ValueError, match="H_patches|spatial_splits"):
            nn.area_ids(torch.arange(12), *arguments)
