"""Cross-entropy without kept logits, against torch's in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from genie_cpp import ops
from genie_cpp.models import DynamicsModel

# Rows of one piece of work and of several, classes that are no multiple of a vector, and one class alone.
SIZES = [(1, 1, 1), (5, 7, 3), (300, 16, 37), (700, 8, 16384), (2000, 24, 4096)]


def inputs(rows: int, channels: int, classes: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    seed = 11
    print("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, channels, generator=generator, dtype=torch.float64)
    weight = torch.randn(classes, channels, generator=generator, dtype=torch.float64)
    bias = torch.randn(classes, generator=generator, dtype=torch.float64)
    targets = torch.randint(classes, (rows,), generator=generator)
    return x.to(dtype), weight.to(dtype), bias.to(dtype), targets


def reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    logits = F.linear(x, weight, bias)
    loss = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
    return loss, (logits.argmax(-1) == targets).sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 4e-2)]
)
def test_loss_hits_and_gradients_are_torchs(
    sizes: tuple[int, int, int], smoothing: float, dtype: torch.dtype, tolerance: float
) -> None:
    x, weight, bias, targets = inputs(*sizes, dtype)
    if dtype == torch.bfloat16 and x.numel() * len(weight) > 1e6:
        pytest.skip("bfloat16 products are slow without instructions for them")
    exact = [tensor.clone().double().requires_grad_() for tensor in (x, weight, bias)]
    torchs = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    ours = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    true_loss, true_correct = reference(*exact, targets, smoothing)
    reference(*torchs, targets, smoothing)[0].mul(0.5).backward()
    loss, correct = ops.linear_cross_entropy(*ours, targets, smoothing)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (loss.double() - true_loss).abs() <= tolerance * true_loss.abs().clamp_min(1)
    if dtype != torch.bfloat16:
        assert correct == true_correct
    (loss * 0.5).backward()
    (true_loss * 0.5).backward()
    for mine, other, true in zip(ours, torchs, exact, strict=True):
        assert mine.grad is not None and other.grad is not None and true.grad is not None
        error, torch_error = ((grad.double() - true.grad).abs().max() for grad in (mine.grad, other.grad))
        assert error <= 2 * torch_error + tolerance * true.grad.abs().max().clamp_min(1e-3)


def test_bias_may_be_missing_and_without_gradients_the_values_are_the_same() -> None:
    x, weight, _, targets = inputs(40, 6, 9, torch.float32)
    with_gradients = ops.linear_cross_entropy(x.requires_grad_(), weight, None, targets)
    with torch.no_grad():
        without = ops.linear_cross_entropy(x, weight, None, targets)
    assert torch.equal(with_gradients[0], without[0]) and torch.equal(with_gradients[1], without[1])
    true, hits = reference(x.double(), weight.double(), None, targets, 0)
    assert (without[0].double() - true).abs() <= 1e-5 * true.abs() and without[1] == hits


def test_gradients_agree_with_differences() -> None:
    x, weight, bias, targets = inputs(4, 5, 6, torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    assert torch.autograd.gradcheck(
        lambda *tensors: ops.linear_cross_entropy(*tensors, targets, 0.2)[0], leaves
    )


def test_no_rows_cost_nothing() -> None:
    x, weight, bias, targets = inputs(0, 5, 6, torch.float32)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    loss, correct = ops.linear_cross_entropy(*leaves, targets)
    loss.backward()
    assert loss == 0 and correct == 0
    assert weight.grad is not None and (weight.grad == 0).all()


def test_huge_logits_keep_a_finite_loss_and_nan_goes_through() -> None:
    x = torch.tensor([[1e4, -1e4, 0.0], [0.0, 1e4, 3.0]])
    loss, correct = ops.linear_cross_entropy(x, torch.eye(3), None, torch.tensor([0, 0]))
    assert (loss - 1e4).abs() <= 1 and correct == 1
    x = torch.tensor([[float("nan"), 0.0], [1.0, 2.0]], requires_grad=True)
    loss, _ = ops.linear_cross_entropy(x, torch.eye(2), None, torch.tensor([1, 1]))
    loss.backward()
    assert loss.isnan() and x.grad is not None
    assert x.grad[0].isnan().all() and x.grad[1].isfinite().all()


def test_autocast_takes_products_in_bfloat16_and_the_loss_in_float32() -> None:
    x, weight, bias, targets = inputs(20, 8, 10, torch.float32)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = ops.linear_cross_entropy(*leaves, targets)
    loss.backward()
    true, _ = reference(x.double(), weight.double(), bias.double(), targets, 0)
    assert loss.dtype == torch.float32 and (loss.double() - true).abs() <= 2e-2 * true.abs()
    assert x.grad is not None and x.grad.dtype == torch.float32


def test_torch_accepts_the_op() -> None:
    x, weight, bias, targets = inputs(5, 4, 6, torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    torch.library.opcheck(torch.ops.genie.linear_cross_entropy.default, (*leaves, targets, 0.1))


def test_second_derivatives_are_refused() -> None:
    x, weight, bias, targets = inputs(5, 4, 6, torch.float64)
    loss, _ = ops.linear_cross_entropy(x.requires_grad_(), weight, bias, targets)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss * scale, x, create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward"):
        gradient.sum().backward()


def test_what_does_not_fit_is_refused() -> None:
    x, weight, bias, targets = inputs(5, 4, 6, torch.float32)
    with pytest.raises(ValueError, match="x must be"):
        ops.linear_cross_entropy(x[:, :-1], weight, bias, targets)
    with pytest.raises(ValueError, match="targets must be"):
        ops.linear_cross_entropy(x, weight, bias, targets[:-1])
    with pytest.raises(ValueError, match="bias must be"):
        ops.linear_cross_entropy(x, weight, bias[:-1], targets)
    with pytest.raises(ValueError, match="label_smoothing"):
        ops.linear_cross_entropy(x, weight, bias, targets, 1.5)
    with pytest.raises(TypeError, match="one floating type"):
        ops.linear_cross_entropy(x.double(), weight, bias, targets)
    with pytest.raises(TypeError, match="int64"):
        ops.linear_cross_entropy(x, weight, bias, targets.int())
    for bad in (-1, 6):
        with pytest.raises(IndexError, match=r"\[0, 6\)"):
            ops.linear_cross_entropy(x, weight, bias, targets.clone().index_fill_(0, torch.tensor([2]), bad))


def test_the_model_counts_masked_tokens_alone() -> None:
    torch.manual_seed(12)
    config = {
        "data": {"num_frames": 3, "height": 8, "width": 8},
        "tokenizer": {"patch_size": 4, "quantizer": {"num_codes": 16}},
        "latent_action": {"patch_size": 4},
        "dynamics": {"transformer": {"depth": 1, "dim": 16, "heads": 2}},
    }
    model = DynamicsModel(config)
    tokens = torch.randint(16, (2, 3, 4))
    actions = torch.zeros(2, 2, dtype=torch.long)
    mask = torch.rand(2, 3, 4) < 0.5
    features = model.features(tokens, actions, mask)
    loss, correct = model.cross_entropy(features, tokens, mask, 0.1)
    logits = model.logits(features)[mask]
    true = F.cross_entropy(logits.double(), tokens[mask], reduction="sum", label_smoothing=0.1)
    assert (loss.double() - true).abs() <= 1e-5 * true
    assert correct == (logits.argmax(-1) == tokens[mask]).sum()
    with pytest.raises(ValueError, match="expected features"):
        model.cross_entropy(features[:, :2], tokens, mask)
