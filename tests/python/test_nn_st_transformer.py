"""The ST-transformer's blocks against a reference in plain PyTorch."""

from __future__ import annotations

import attention_references as references
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genie_cpp import nn

Weights = dict[str, Tensor]


def below(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def attention(
    w: Weights, x: Tensor, heads: int, axis: str, causal: bool, scale: float | None = None
) -> Tensor:
    qkv = F.linear(x, w["qkv.weight"], w.get("qkv.bias")).unflatten(-1, (3, heads, -1))
    return F.linear(references.st_attention(qkv, axis, causal, True, scale), w["proj.weight"], w["proj.bias"])


def norm(w: Weights, x: Tensor) -> Tensor:
    if "bias" not in w:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w["weight"]
    return F.layer_norm(x, x.shape[-1:], w["weight"], w["bias"], 1e-5)


def mlp(w: Weights, x: Tensor, activation=F.gelu) -> Tensor:
    return F.linear(activation(F.linear(x, w["fc1.weight"], w["fc1.bias"])), w["fc2.weight"], w["fc2.bias"])


def block(w: Weights, x: Tensor, heads: int, causal: bool = True, activation=F.gelu) -> Tensor:
    x = x + attention(below(w, "attn_spatial."), norm(below(w, "norm1_spatial."), x), heads, "space", False)
    x = x + attention(below(w, "attn_temporal."), norm(below(w, "norm1_temporal."), x), heads, "time", causal)
    return x + mlp(below(w, "mlp."), norm(below(w, "norm2."), x), activation)


def compare(module: nn.Module, function, x: Tensor, dtype: torch.dtype, **arguments: object) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    module = module.to(dtype)
    weights = {name: p.detach().double().requires_grad_() for name, p in module.named_parameters()}
    ours = x.to(dtype).requires_grad_()
    exact = ours.detach().double().requires_grad_()
    out, expected = module(ours, **arguments), function(weights, exact)
    tolerance = references.TOLERANCE[dtype]
    references.assert_close(out, expected, tolerance)
    upstream = torch.randn_like(expected)
    grads = torch.autograd.grad(out, [ours, *module.parameters()], upstream.to(dtype))
    exact_grads = torch.autograd.grad(expected, [exact, *weights.values()], upstream.to(dtype).double())
    for name, gradient, other in zip(["x", *weights], grads, exact_grads, strict=True):
        references.assert_close(gradient, other, tolerance, f"gradient of {name}")


dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
SIZES = [(2, 3, 5), (1, 1, 4), (2, 4, 1), (1, 1, 1)]


@dtypes
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("head_dim", [0, 12, 20])
def test_attention_agrees_with_the_reference(size, head_dim, dtype):
    references.seed(1)
    x = torch.randn(*size, 16)
    arguments = {"head_dim": head_dim, "qkv_bias": True}
    compare(
        nn.STSpatialAttention(16, 2, **arguments), lambda w, y: attention(w, y, 2, "space", False), x, dtype
    )
    for causal in (False, True):
        module = nn.STTemporalAttention(16, 2, **arguments)
        compare(module, lambda w, y, c=causal: attention(w, y, 2, "time", c), x, dtype, causal=causal)
    module = nn.STTemporalAttention(16, 2, qk_scale=0.1)
    compare(module, lambda w, y: attention(w, y, 2, "time", True, 0.1), x, dtype)


@dtypes
@pytest.mark.parametrize("size", SIZES)
def test_block_agrees_with_the_reference(size, dtype):
    references.seed(2)
    compare(nn.STTransformerBlock(16, 2), lambda w, x: block(w, x, 2), torch.randn(*size, 16), dtype)
    other = nn.STTransformerBlock(16, 2, act_layer=torch.nn.SiLU, norm_layer="rmsnorm")
    compare(other, lambda w, x: block(w, x, 2, True, F.silu), torch.randn(*size, 16), dtype)


@dtypes
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_transformer_agrees_with_the_reference(causal, checkpointing, dtype):
    references.seed(3)
    module = nn.STTransformer(
        num_patches_per_frame=5,
        dim=16,
        depth=3,
        num_heads=2,
        head_dim=12,
        gradient_checkpointing=checkpointing,
    )

    def reference(w: Weights, x: Tensor) -> Tensor:
        for layer in range(3):
            x = block(below(w, f"blocks.{layer}."), x, 2, causal)
        return norm(below(w, "norm."), x)

    compare(module, reference, torch.randn(2, 4, 5, 16), dtype, causal=causal)


def test_three_dimensional_input_needs_the_number_of_frames():
    references.seed(4)
    lone = nn.STTransformerBlock(16, 2)
    x = torch.randn(2, 3, 5, 16)
    assert torch.equal(lone(x.flatten(1, 2), num_frames=3).view_as(x), lone(x))
    with pytest.raises(ValueError, match="needs num_frames"):
        lone(x.flatten(1, 2))
    with pytest.raises(ValueError, match="divides its 15 tokens"):
        lone(x.flatten(1, 2), num_frames=4)
    stack = nn.STTransformer(num_patches_per_frame=5, dim=16, depth=1, num_heads=2)
    assert torch.equal(stack(x.flatten(1, 2)).view_as(x), stack(x))
    with pytest.raises(ValueError, match="14 tokens are no multiple of num_patches_per_frame=5"):
        stack(x.flatten(1, 2)[:, :14])


def test_later_frames_change_nothing_before_them():
    references.seed(5)
    module = nn.STTransformer(num_patches_per_frame=4, dim=16, depth=3, num_heads=2)
    x = torch.randn(2, 6, 4, 16)
    changed = x.clone()
    changed[:, 4:] = torch.randn_like(changed[:, 4:]) * 5
    assert torch.equal(module(x)[:, :4], module(changed)[:, :4])
    assert not torch.equal(module(x, causal=False)[:, :4], module(changed, causal=False)[:, :4])


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    references.seed(6)
    module = nn.DropPath(0.25)
    out = module(torch.ones(4000, 3))
    assert set(out.unique().tolist()) == {0.0, out.max().item()}
    assert abs(out.max().item() - 1 / 0.75) <= 1e-6
    assert ((out == 0).all(1) | (out > 0).all(1)).all()
    assert abs(out.mean().item() - 1) <= 0.05
    module.eval()
    assert torch.equal(module(out), out)


def test_keys_are_those_of_the_original():
    keys = set(nn.STTransformer(num_patches_per_frame=4, dim=8, depth=1, num_heads=2).state_dict())
    parts = ["norm1_spatial", "norm1_temporal", "norm2"]
    parts += [
        "attn_spatial.qkv",
        "attn_spatial.proj",
        "attn_temporal.qkv",
        "attn_temporal.proj",
        "mlp.fc1",
        "mlp.fc2",
    ]
    names = [f"blocks.0.{part}" for part in parts] + ["norm"]
    assert keys == {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}


def test_create_st_transformer_counts_patches():
    module = nn.create_st_transformer(num_frames=2, patch_size=4, img_size=8, dim=8, depth=1, num_heads=2)
    assert module(torch.randn(1, 8, 8)).shape == (1, 8, 8)
    with pytest.raises(ValueError, match="img_size=9 is not divisible"):
        nn.create_st_transformer(img_size=9)


@pytest.mark.parametrize("activation", ["gelu", "silu", "relu"])
def test_mlp_agrees_with_the_reference(activation):
    references.seed(7)
    compare(
        nn.STMLP(6, 10, 4, activation),
        lambda w, x: mlp(w, x, getattr(F, activation)),
        torch.randn(3, 2, 6),
        torch.float64,
    )


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: nn.STSpatialAttention(10, 3), "dim=10 is not divisible by num_heads=3"),
        (lambda: nn.STTemporalAttention(0), "at least 1, got dim=0"),
        (lambda: nn.STMLP(4, act_layer="tanh"), "gelu, silu or relu, got 'tanh'"),
        (lambda: nn.STMLP(4, act_layer=torch.nn.Tanh), "none of the layers"),
        (lambda: nn.STMLP(4, drop=1.0), "drop must be in"),
        (lambda: nn.DropPath(-0.1), "drop_prob must be in"),
        (
            lambda: nn.STTransformerBlock(8, 2, norm_layer="batchnorm"),
            "'layernorm' or 'rmsnorm', got 'batchnorm'",
        ),
        (lambda: nn.STTransformer(depth=-1), "depth must be >= 0"),
        (lambda: nn.RMSNorm(0), "dim must be at least 1"),
    ],
)
def test_wrong_construction_is_a_value_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("cls", [nn.STSpatialAttention, nn.STTemporalAttention])
def test_wrong_input_is_a_value_error(cls):
    for x in (torch.zeros(2, 3, 8), torch.zeros(2, 3, 4, 6)):
        with pytest.raises(ValueError, match=r"expected \(B,T,N,8\)"):
            cls(8, 2)(x)
    with pytest.raises(TypeError, match="Double"):
        cls(8, 2)(torch.zeros(1, 1, 1, 8).double())
