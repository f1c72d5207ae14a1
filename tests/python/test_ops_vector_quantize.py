"""torch.ops.genie.vector_quantize against exhaustive float64 distances."""

from __future__ import annotations

import attention_references as references
import pytest
import torch

import genie_cpp  # noqa: F401  (registers the ops)

op = torch.ops.genie.vector_quantize


def nearest(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """The first code at the least distance, by the definition."""
    distance = (x.double()[:, None] - codebook.double()[None]).square().sum(-1)
    return (distance == distance.min(1, keepdim=True).values).int().argmax(1)


FLOAT32 = references.places(torch.float32, cuda=(torch.float32,))


@pytest.mark.parametrize(
    "place", references.places(torch.float64, torch.float32, torch.bfloat16), indirect=True
)
@pytest.mark.parametrize(
    "count,codes,channels", [(1, 1, 1), (130, 8, 32), (49, 257, 5), (100, 1024, 12), (7, 600, 64)]
)
def test_finds_the_nearest_code(count, codes, channels, place):
    references.seed(1)
    x, codebook = torch.randn(count, channels).to(place.dtype), torch.randn(codes, channels).to(place.dtype)
    quantized, indices = (result.cpu() for result in op(x.to(place.device), codebook.to(place.device)))
    assert torch.equal(indices, nearest(x, codebook))
    assert torch.equal(quantized, codebook[indices])


@pytest.mark.parametrize("place", FLOAT32, indirect=True)
def test_equal_codes_give_the_lowest_index(place):
    references.seed(2)
    codebook = torch.randn(37, 9).repeat(30, 1)
    x = torch.randn(50, 9)
    indices = op(x.to(place.device), codebook.to(place.device))[1].cpu()
    assert torch.equal(indices, nearest(x, codebook[:37]))


@pytest.mark.parametrize("place", FLOAT32, indirect=True)
def test_codes_closer_than_float32_arithmetic_are_told_apart(place):
    references.seed(3)
    codebook = torch.randn(300, 16) * 1e-4 + 100
    x = torch.randn(64, 16) * 1e-4 + 100
    assert torch.equal(op(x.to(place.device), codebook.to(place.device))[1].cpu(), nearest(x, codebook))


def test_a_code_that_is_not_finite_is_never_chosen_and_no_vector_crashes():
    references.seed(4)
    x, codebook = torch.randn(20, 4), torch.randn(12, 4)
    expected = nearest(x, codebook)
    codebook = torch.cat([torch.full((1, 4), float("nan")), codebook, torch.full((2, 4), float("inf"))])
    assert torch.equal(op(x, codebook)[1], expected + 1)
    x[3] = float("nan")
    x[5, 1] = float("inf")
    indices = op(x, codebook)[1]
    assert indices[3] == 0 and indices[5] == 0
    assert torch.equal(op(x, torch.full((3, 4), float("nan")))[1], torch.zeros(20, dtype=torch.int64))


def test_gradient_goes_to_the_codebook_only():
    references.seed(5)
    x = torch.randn(40, 6, dtype=torch.float64, requires_grad=True)
    codebook = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    quantized, indices = op(x, codebook)
    assert not indices.requires_grad
    upstream = torch.randn_like(quantized)
    quantized.backward(upstream)
    assert x.grad is None
    expected = torch.zeros_like(codebook).index_add(0, indices, upstream)
    references.assert_close(codebook.grad, expected, 1e-12)
    assert torch.autograd.gradcheck(lambda c: op(x.detach(), c)[0], (codebook,))
    assert torch.autograd.gradgradcheck(lambda c: op(x.detach(), c)[0], (codebook,))


def test_bfloat16_gradient_is_summed_in_float32():
    x, codebook = torch.zeros(4000, 1).bfloat16(), torch.zeros(1, 1).bfloat16().requires_grad_()
    op(x, codebook)[0].sum().backward()
    assert codebook.grad.item() == 4000


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(requires_grad):
    torch.library.opcheck(op, (torch.randn(9, 4), torch.randn(5, 4).requires_grad_(requires_grad)))


def test_compiles_as_one_graph():
    references.seed(6)
    x, codebook = torch.randn(9, 4), torch.randn(5, 4, requires_grad=True)
    compiled = torch.compile(lambda y: op(y, codebook)[0].sin(), fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(op(x, codebook)[0].sin().sum(), codebook)[0]
    assert torch.equal(torch.autograd.grad(compiled(x).sum(), codebook)[0], expected)


def test_autocast_compares_in_float32():
    with torch.autocast("cpu", torch.bfloat16):
        assert op(torch.randn(3, 4).bfloat16(), torch.randn(5, 4))[0].dtype == torch.float32


def test_no_vectors_give_no_indices():
    quantized, indices = op(torch.zeros(0, 4), torch.randn(5, 4))
    assert indices.shape == (0,) and quantized.shape == (0, 4)


@pytest.mark.parametrize(
    "x,codebook,error,message",
    [
        (torch.zeros(3, 4), torch.zeros(5, 3), ValueError, r"\(K, D\), got \[3, 4\] and \[5, 3\]"),
        (torch.zeros(3, 4, 1), torch.zeros(5, 4), ValueError, "x must be"),
        (torch.zeros(3, 4), torch.zeros(0, 4), ValueError, "at least one code"),
        (torch.zeros(3, 0), torch.zeros(2, 0), ValueError, "at least one channel"),
        (torch.zeros(3, 4).long(), torch.zeros(5, 4), TypeError, "float32, bfloat16 or float64"),
        (torch.zeros(3, 4), torch.zeros(5, 4).double(), TypeError, "the codebook Double"),
        (torch.zeros(3, 4), torch.zeros(5, 4, device="meta"), (ValueError, RuntimeError), "meta"),
    ],
)
def test_wrong_input_is_refused(x, codebook, error, message):
    with pytest.raises(error, match=message):
        op(x, codebook)
