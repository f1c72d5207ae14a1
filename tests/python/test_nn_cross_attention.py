"""CrossAttention and its block against a reference in plain PyTorch."""

from __future__ import annotations

import attention_references as references
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genie_cpp import nn


def reference(
    w: dict[str, Tensor], x: Tensor, y: Tensor, heads: int, kv_heads: int, mask: Tensor | None
) -> Tensor:
    q, k, v = (
        F.linear(source, w[f"{name}_proj.weight"]).unflatten(-1, (count, -1)).transpose(1, 2)
        for source, name, count in ((x, "q", heads), (y, "k", kv_heads), (y, "v", kv_heads))
    )
    groups = torch.arange(heads) // (heads // kv_heads)
    visible = None if mask is None else mask[:, None, None, :].expand(-1, heads, x.shape[1], -1)
    out = references.attention(q, k[:, groups], v[:, groups], q.shape[-1] ** -0.5, visible)
    return F.linear(out.transpose(1, 2).flatten(2), w["o_proj.weight"])


def randomized(block: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return block


def compare(
    block: nn.Module, function, x: Tensor, y: Tensor, mask: Tensor | None, dtype: torch.dtype
) -> None:
    block = block.to(dtype)
    weights = {name: p.detach().double().requires_grad_() for name, p in block.named_parameters()}
    ours = [t.to(dtype).requires_grad_() for t in (x, y)]
    exact = [t.detach().double().requires_grad_() for t in ours]
    out, expected = block(*ours, mask), function(weights, *exact, mask)
    tolerance = references.TOLERANCE[dtype]
    references.assert_close(out, expected, tolerance)
    upstream = torch.randn_like(expected)
    grads = torch.autograd.grad(out, [*ours, *block.parameters()], upstream.to(dtype))
    exact_grads = torch.autograd.grad(expected, [*exact, *weights.values()], upstream.to(dtype).double())
    # Where one image token is seen, the gradients by queries and keys are 0 but for the others' rounding.
    largest = max(g.abs().max().item() for g in exact_grads)
    for name, gradient, other in zip(["x", "features", *weights], grads, exact_grads, strict=True):
        floor = max(0.01, 0.1 * largest) if y.shape[1] == 1 or mask is not None else 0.01
        references.assert_close(gradient, other, tolerance, f"gradient of {name}", floor)


dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


@dtypes
@pytest.mark.parametrize(
    "heads,kv_heads,head_dim", [(4, 4, None), (4, 2, None), (4, 1, 12), (1, 1, 5), (6, 3, 7)]
)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sizes", [(2, 3, 5), (1, 1, 1), (3, 7, 2)])
def test_agrees_with_the_reference(heads, kv_heads, head_dim, masked, sizes, dtype):
    references.seed(1)
    batch, length, images = sizes
    block = randomized(nn.CrossAttention(24, heads, kv_heads, head_dim))
    mask = torch.rand(batch, images) < 0.6 if masked else None
    compare(
        block,
        lambda w, x, y, m: reference(w, x, y, heads, kv_heads, m),
        torch.randn(batch, length, 24),
        torch.randn(batch, images, 24),
        mask,
        dtype,
    )


def test_a_sample_without_images_gets_zero_and_gives_no_gradient():
    references.seed(2)
    block = randomized(nn.CrossAttention(8, 2, 1))
    x = torch.randn(2, 3, 8, requires_grad=True)
    y = torch.randn(2, 4, 8, requires_grad=True)
    mask = torch.tensor([[True, False, True, True], [False] * 4])
    out = block(x, y, mask)
    assert (out[1] == 0).all() and (out[0] != 0).any()
    gradients = torch.autograd.grad(out.sum(), (x, y))
    assert (gradients[0][1] == 0).all() and (gradients[1][1] == 0).all()
    parameters = torch.autograd.grad(block(x[1:], y[1:], mask[1:]).sum(), list(block.parameters()))
    assert all((gradient == 0).all() for gradient in parameters)


def block_reference(
    w: dict[str, Tensor], x: Tensor, y: Tensor, mask, norm_type: str, activation: str
) -> Tensor:
    def norm(name: str, t: Tensor) -> Tensor:
        if norm_type == "layernorm":
            return F.layer_norm(t, (t.shape[-1],), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)
        return t / (t.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"]

    attention = {name.removeprefix("attn."): value for name, value in w.items() if name.startswith("attn.")}
    x = x + reference(attention, norm("attn_norm", x), y, 4, 2, mask)
    h = norm("mlp_norm", x)
    up = F.linear(h, w["mlp.up_proj.weight"])
    if activation == "silu":
        up = F.silu(F.linear(h, w["mlp.gate_proj.weight"])) * up
    else:
        up = F.gelu(up) if activation == "gelu" else F.relu(up)
    return x + F.linear(up, w["mlp.down_proj.weight"])


@dtypes
@pytest.mark.parametrize("norm_type", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("activation", ["silu", "gelu", "relu"])
def test_block_agrees_with_the_reference(norm_type, activation, dtype):
    references.seed(3)
    block = randomized(nn.CrossAttentionBlock(16, 4, 2, 20, norm_type, activation))
    compare(
        block,
        lambda w, x, y, m: block_reference(w, x, y, m, norm_type, activation),
        torch.randn(2, 3, 16),
        torch.randn(2, 5, 16),
        torch.rand(2, 5) < 0.7,
        dtype,
    )


@pytest.mark.parametrize("activation", ["silu", "gelu", "relu"])
def test_block_is_the_identity_at_its_start_and_only_output_projections_have_a_gradient(activation):
    references.seed(4)
    block = nn.CrossAttentionBlock(16, 4, 2, 20, activation=activation)
    x, y = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    out = block(x, y)
    assert torch.equal(out, x)
    out.square().sum().backward()
    moving = {name for name, p in block.named_parameters() if p.grad is not None and (p.grad != 0).any()}
    assert moving == {"attn.o_proj.weight", "mlp.down_proj.weight"}


def test_weights_are_drawn_in_the_order_q_k_v_o():
    torch.manual_seed(5)
    block = nn.CrossAttention(8, 4, 2)
    torch.manual_seed(5)
    for name, width in (("q", 8), ("k", 4), ("v", 4)):
        expected = torch.nn.Linear(8, width, bias=False).weight
        assert torch.equal(getattr(block, f"{name}_proj").weight, expected)
    torch.nn.Linear(8, 8, bias=False)
    after = torch.rand(1)
    torch.manual_seed(5)
    nn.CrossAttention(8, 4, 2)
    assert torch.equal(torch.rand(1), after)
    assert (block.o_proj.weight == 0).all()


def test_keys():
    assert set(nn.CrossAttentionBlock(8, 2, 1, 12).state_dict()) == {
        "attn_norm.weight",
        "attn.q_proj.weight",
        "attn.k_proj.weight",
        "attn.v_proj.weight",
        "attn.o_proj.weight",
        "mlp_norm.weight",
        "mlp.gate_proj.weight",
        "mlp.up_proj.weight",
        "mlp.down_proj.weight",
    }


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"dim": 8, "n_heads": 4, "n_kv_heads": 3}, "n_heads=4 is not divisible by n_kv_heads=3"),
        ({"dim": 8, "n_heads": 0, "n_kv_heads": 1}, "at least 1, got dim=8, n_heads=0, n_kv_heads=1"),
        ({"dim": 8, "n_heads": 4, "n_kv_heads": -2}, "n_kv_heads=-2"),
        ({"dim": -8, "n_heads": 4, "n_kv_heads": 2}, "dim=-8"),
        ({"dim": 8, "n_heads": 4, "n_kv_heads": 2, "head_dim": 0}, "head_dim=0"),
    ],
)
def test_wrong_construction_is_a_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        nn.CrossAttention(**arguments)
    if "head_dim" not in arguments:
        with pytest.raises(ValueError, match=message):
            nn.CrossAttentionBlock(**arguments, ffn_hidden_dim=8)


def test_unknown_names_are_value_errors_that_name_the_choices():
    with pytest.raises(ValueError, match="'layernorm' or 'rmsnorm', got 'batchnorm'"):
        nn.CrossAttentionBlock(8, 2, 1, 12, norm_type="batchnorm")
    with pytest.raises(ValueError, match="'silu', 'gelu' or 'relu', got 'tanh'"):
        nn.CrossAttentionBlock(8, 2, 1, 12, activation="tanh")
    with pytest.raises(ValueError, match="ffn_hidden_dim must be at least 1, got 0"):
        nn.CrossAttentionBlock(8, 2, 1, 0)


X, Y = torch.zeros(2, 3, 8), torch.zeros(2, 5, 8)


@pytest.mark.parametrize(
    "x,y,mask,error,message",
    [
        (X[0], Y, None, ValueError, r"x \(B,S,8\), got \[3, 8\]"),
        (X, Y[..., :4], None, ValueError, r"image_features \(B,N,8\), got \[2, 5, 4\]"),
        (X, Y[:1], None, ValueError, "x holds 2 samples, image_features 1"),
        (X, Y[:, :0], None, ValueError, "image_features hold no tokens"),
        (X, Y, torch.ones(2, 5), TypeError, "image_mask must be bool"),
        (X, Y, torch.full((2, 5), float("nan")), TypeError, "image_mask must be bool"),
        (
            X,
            Y,
            torch.ones(2, 4, dtype=torch.bool),
            ValueError,
            r"image_mask must be \(B,N\) = \(2,5\), got \[2, 4\]",
        ),
        (X, Y, torch.ones(1, 5, dtype=torch.bool), ValueError, "image_mask must be"),
        (X, Y, torch.ones(2, 5, dtype=torch.bool, device="meta"), ValueError, "image_mask on meta"),
        (X.double(), Y, None, TypeError, "the module Float"),
    ],
)
def test_wrong_input_is_refused(x, y, mask, error, message):
    with pytest.raises(error, match=message):
        nn.CrossAttention(8, 2, 1)(x, y, mask)
