"""ViT5Attention against a reference in plain PyTorch."""

from __future__ import annotations

import attention_references as references
import pytest
import torch
from torch import Tensor

from genie_cpp import nn


def tables(height: int, width: int, cls: bool, registers: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """cos and sin by the definition, channel by channel."""
    side = round(registers**0.5)
    places = [(r, c, 10000.0) for r in range(height) for c in range(width)]
    places += [None] if cls else []
    places += [(r, c, 100.0) for r in range(side) for c in range(side)]
    angle = torch.zeros(len(places), head_dim, dtype=torch.float64)
    half = head_dim // 2
    for t, place in enumerate(places):
        if place is None:
            continue
        for channel in range(head_dim):
            position = place[0] if channel < half else place[1]
            angle[t, channel] = position * place[2] ** (-2 * ((channel % half) // 2) / half)
    return angle.cos(), angle.sin()


def norm(kind: str | None, x: Tensor, weight: Tensor | None) -> Tensor:
    if kind is None:
        return x
    if kind == "layernorm":
        x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def reference(
    weights: dict[str, Tensor], x: Tensor, heads: int, kind: str | None, scale: float | None, cos, sin
):
    batch, tokens, channels = x.shape
    qkv = torch.nn.functional.linear(x, weights["qkv.weight"], weights.get("qkv.bias"))
    q, k, v = qkv.view(batch, tokens, 3, heads, channels // heads).unbind(2)
    q = references.rope_register(norm(kind, q, weights.get("q_norm.weight")), cos, sin)
    k = references.rope_register(norm(kind, k, weights.get("k_norm.weight")), cos, sin)
    q, k, v = (y.transpose(1, 2) for y in (q, k, v))
    out = references.attention(q, k, v, (channels // heads) ** -0.5 if scale is None else scale)
    return torch.nn.functional.linear(
        out.transpose(1, 2).flatten(2), weights["proj.weight"], weights.get("proj.bias")
    )


CASES = [
    {"num_patches_h": 2, "num_patches_w": 3},
    {"num_patches_h": 3, "num_patches_w": 1, "has_cls": False},
    {"num_patches_h": 2, "num_patches_w": 2, "num_registers": 0},
    {"num_patches_h": 1, "num_patches_w": 4, "num_registers": 0, "has_cls": False},
    {"num_patches_h": 1, "num_patches_w": 1, "num_registers": 9},
    {"num_patches_h": 0, "num_patches_w": 0, "num_registers": 1},
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", [None, "rmsnorm", "layernorm"])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("head_dim", [8, 12])
def test_agrees_with_the_reference(case, kind, dtype, head_dim):
    references.seed(1)
    bias = kind is not None
    block = nn.ViT5Attention(2 * head_dim, 2, **case, qk_norm=kind, qkv_bias=bias, out_proj_bias=bias).to(
        dtype
    )
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    cls, registers = case.get("has_cls", True), case.get("num_registers", 4)
    cos, sin = tables(case["num_patches_h"], case["num_patches_w"], cls, registers, head_dim)
    assert block.rope_cos.dtype == dtype
    references.assert_close(block.rope_cos, cos, 1e-7)
    weights = {name: p.detach().double().requires_grad_() for name, p in block.named_parameters()}
    ours = torch.randn(2, len(cos), 2 * head_dim).to(dtype).requires_grad_()
    other = ours.detach().double().requires_grad_()
    out, expected = block(ours), reference(weights, other, 2, kind, None, cos, sin)
    tolerance = references.TOLERANCE[dtype]
    references.assert_close(out, expected, tolerance)
    upstream = torch.randn_like(expected)
    grads = torch.autograd.grad(out, [ours, *block.parameters()], upstream.to(dtype))
    exact = torch.autograd.grad(expected, [other, *weights.values()], upstream.to(dtype).double())
    for name, gradient, expected_gradient in zip(["x", *weights], grads, exact, strict=True):
        references.assert_close(gradient, expected_gradient, tolerance, f"gradient of {name}")


@pytest.mark.parametrize("scale", [0.0, 0.3])
def test_scale_is_honoured_also_zero(scale):
    references.seed(2)
    block = nn.ViT5Attention(16, 2, 2, 3, scale=scale).double()
    x = torch.randn(1, 11, 16, dtype=torch.float64)
    weights = dict(block.named_parameters())
    references.assert_close(block(x), reference(weights, x, 2, None, scale, *tables(2, 3, True, 4, 8)), 1e-10)


def test_keys_are_those_of_the_original():
    keys = {"qkv.weight", "proj.weight"}
    assert set(nn.ViT5Attention(16, 2, 2, 3).state_dict()) == keys
    norms = {"q_norm.weight", "k_norm.weight"}
    assert set(nn.ViT5Attention(16, 2, 2, 3, qk_norm="rmsnorm").state_dict()) == keys | norms
    biased = nn.ViT5Attention(16, 2, 2, 3, qkv_bias=True, out_proj_bias=True)
    assert set(biased.state_dict()) == keys | {"qkv.bias", "proj.bias"}


def test_tables_stay_float32_in_bfloat16_and_become_float64_exactly():
    block = nn.ViT5Attention(16, 2, 9, 9)
    before = block.rope_cos.clone()
    block.bfloat16()
    assert block.rope_cos.dtype == block.rope_sin.dtype == torch.float32
    assert torch.equal(block.rope_cos, before)
    assert block(torch.randn(1, 86, 16).bfloat16()).dtype == torch.bfloat16
    block.double()
    assert block.rope_cos.dtype == torch.float64
    references.assert_close(block.rope_cos, tables(9, 9, True, 4, 8)[0], 1e-14)
    assert not block._buffers["rope_cos"].requires_grad and "rope_cos" not in block.state_dict()


def test_init_functions_fill_weights_and_zero_biases():
    block = nn.ViT5Attention(
        16, 2, 2, 3, qkv_bias=True, out_proj_bias=True, init_fn_qkv_proj=lambda w: w.fill_(0.5)
    )
    assert (block.qkv.weight == 0.5).all() and (block.qkv.bias == 0).all()
    assert not (block.proj.bias == 0).all()
    block = nn.ViT5Attention(16, 2, 2, 3, out_proj_bias=True, init_fn_out_proj=torch.nn.init.ones_)
    assert (block.proj.weight == 1).all() and (block.proj.bias == 0).all()


def test_flop_count():
    arguments = {"hidden_dim": 16, "num_heads": 2, "num_patches_h": 2, "num_patches_w": 3}
    assert nn.ViT5Attention(**arguments, qk_norm="rmsnorm").flop_count(11) == 32032
    assert nn.ViT5Attention(**arguments).flop_count(11, inference=True) == 30976


def test_extra_repr():
    block = nn.ViT5Attention(16, 2, 2, 3, qk_norm="rmsnorm")
    assert block.extra_repr() == (
        "hidden_dim=16, num_heads=2, qk_norm=True, num_registers=4, patches=(2x3), "
        "rope_base=10000.0, reg_rope_base=100.0"
    )


def test_dropout_acts_in_training_only():
    references.seed(3)
    block = nn.ViT5Attention(16, 2, 2, 3, attn_dropout=0.5)
    x = torch.randn(1, 11, 16)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_autocast_takes_both_dtypes():
    block, x = nn.ViT5Attention(16, 2, 2, 3, qk_norm="rmsnorm"), torch.randn(1, 11, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert block(x).dtype == torch.bfloat16
        assert block(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"hidden_dim": 10, "num_heads": 3}, "hidden_dim=10 is not divisible by num_heads=3"),
        (
            {"hidden_dim": 12, "num_heads": 2},
            r"head_dim=6 \(hidden_dim=12 / num_heads=2\) is not divisible by 4",
        ),
        ({"num_registers": 3}, "num_registers=3 is no perfect square"),
        (
            {"num_registers": -4},
            "must not be negative, got num_patches_h=2, num_patches_w=3, num_registers=-4",
        ),
        ({"num_patches_w": -1}, "num_patches_w=-1"),
        ({"hidden_dim": 0}, "hidden_dim=0"),
        ({"num_heads": 0}, "num_heads=0"),
        ({"qk_norm": "batchnorm"}, "'rmsnorm' or 'layernorm', got 'batchnorm'"),
        ({"rope_base": 0.0}, "must be positive, got 0 and 100"),
        ({"attn_dropout": 1.0}, r"attn_dropout must be in \[0, 1\), got 1"),
    ],
)
def test_wrong_construction_is_a_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        nn.ViT5Attention(
            **{"hidden_dim": 16, "num_heads": 2, "num_patches_h": 2, "num_patches_w": 3, **arguments}
        )


@pytest.mark.parametrize(
    "x,error,message",
    [
        (
            torch.zeros(1, 10, 16),
            ValueError,
            r"expected 11 tokens \(2 x 3 patches, 1 CLS, 4 registers\), got 10",
        ),
        (torch.zeros(1, 1, 16), ValueError, "expected 11 tokens"),
        (torch.zeros(1, 11, 8), ValueError, r"x \(B,T,16\), got \[1, 11, 8\]"),
        (torch.zeros(11, 16), ValueError, r"got \[11, 16\]"),
        (torch.zeros(1, 11, 16).double(), TypeError, "x is Double, the module Float"),
        (torch.zeros(1, 11, 16).long(), TypeError, "x is Long"),
        (torch.zeros(1, 11, 16, device="meta"), ValueError, "x is on meta, the module on cpu"),
    ],
)
def test_wrong_input_is_refused(x, error, message):
    with pytest.raises(error, match=message):
        nn.ViT5Attention(16, 2, 2, 3)(x)
