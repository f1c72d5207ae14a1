"""torch.ops.genie.area_attention against one dense masked attention."""

from __future__ import annotations

import attention_references as references
import pytest
import torch

import genie_cpp  # noqa: F401  (registers the ops)

op = torch.ops.genie.area_attention


def offsets(*lengths: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(dtype)


def draw(total: int, heads: int = 2, channels: int = 12, count: int = 3) -> list[torch.Tensor]:
    return [torch.randn(total, heads, channels, dtype=torch.float64) for _ in range(count)]


# Even, uneven, empty and single-token segments; one segment; a segment longer than a block of rows.
LENGTHS = [(4, 4), (5, 1, 0, 3, 0), (0,), (1,), (7,), (0, 130, 2), (60, 60)]


@pytest.mark.parametrize("place", references.places(torch.float64, torch.float32), indirect=True)
@pytest.mark.parametrize("channels", [12, 20, 64])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("causal", [False, True])
def test_agrees_with_dense_attention(lengths, channels, place, causal):
    references.seed(1)
    total = sum(lengths)
    cu = offsets(*lengths, dtype=torch.int64 if causal else torch.int32)
    frames = torch.randint(0, 4, (total,)) if causal else None
    there = [x if x is None else x.to(place.device) for x in (cu, frames)]
    references.assert_same_gradients(
        lambda q, k, v: op(q, k, v, there[0], max(lengths), None, there[1]),
        lambda q, k, v: references.area_attention(q, k, v, cu, None, frames),
        draw(total, 2, channels),
        place.dtype,
        device=place.device,
    )


@pytest.mark.parametrize("scale", [0.0, 0.7])
def test_scale_is_honoured(scale):
    references.seed(2)
    references.assert_same_gradients(
        lambda q, k, v: op(q, k, v, offsets(3, 4), 4, scale),
        lambda q, k, v: references.area_attention(q, k, v, offsets(3, 4), scale),
        draw(7),
        torch.float64,
    )


def test_slices_of_a_projection_need_no_copy():
    references.seed(3)
    qkv = torch.randn(9, 3, 2, 16)
    q, k, v = qkv.unbind(1)
    cu = offsets(4, 5)
    assert torch.equal(op(q, k, v, cu, 5), op(q.contiguous(), k.contiguous(), v.contiguous(), cu, 5))
    heads_first = qkv.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2).unbind(1)
    assert torch.equal(op(*heads_first, cu, 5), op(q, k, v, cu, 5))


def test_perturbing_one_segment_leaves_the_others_bit_identical():
    references.seed(4)
    q, k, v = (x.float() for x in draw(40, 3, 24))
    cu = offsets(11, 0, 13, 16)
    before = op(q, k, v, cu, 16)
    for x in (q, k, v):
        x[11:24] = torch.randn_like(x[11:24]) * 100
    after = op(q, k, v, cu, 16)
    assert torch.equal(before[:11], after[:11]) and torch.equal(before[24:], after[24:])
    assert not torch.equal(before[11:24], after[11:24])


@pytest.mark.parametrize("lengths", [(3, 70, 0, 150, 1, 40), (1, 1, 300), (20, 20, 20)])
def test_the_number_of_threads_changes_no_bit(lengths):
    references.seed(12)
    inputs = [x.float().requires_grad_() for x in draw(sum(lengths), 3, 16)]
    upstream = torch.randn(sum(lengths), 3, 16)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            out = op(*inputs, offsets(*lengths), max(lengths))
            results.append([out, *torch.autograd.grad(out, inputs, upstream)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_later_frames_of_a_segment_do_not_change_earlier_ones_by_a_bit():
    references.seed(5)
    q, k, v = (x.float() for x in draw(30, 2, 16))
    frames = torch.randint(0, 5, (30,))
    cu = offsets(17, 13)
    before = op(q, k, v, cu, 17, None, frames)
    late = frames >= 3
    for x in (q, k, v):
        x[late] = torch.randn_like(x[late]) * 10
    after = op(q, k, v, cu, 17, None, frames)
    assert torch.equal(before[~late], after[~late])


def test_bfloat16_is_as_accurate_as_sdpa():
    references.seed(6)
    q, k, v = (x.bfloat16() for x in draw(24, 2, 32))
    exact = references.area_attention(q.double(), k.double(), v.double(), offsets(24))
    sdpa = torch.nn.functional.scaled_dot_product_attention
    torch_out = sdpa(*(x.transpose(0, 1)[None] for x in (q, k, v)))[0].transpose(0, 1)
    error = (op(q, k, v, offsets(24), 24).double() - exact).abs().max()
    assert error <= 2 * (torch_out.double() - exact).abs().max()


@pytest.mark.parametrize("causal", [False, True])
def test_gradcheck(causal):
    references.seed(7)
    inputs = [x.requires_grad_() for x in draw(9, 2, 4)]
    frames = torch.tensor([1, 0, 2, 2, 0, 1, 1, 0, 3]) if causal else None
    assert torch.autograd.gradcheck(lambda *x: op(*x, offsets(4, 0, 5), 5, None, frames), inputs)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(requires_grad):
    q, k, v = (x.float().requires_grad_(requires_grad) for x in draw(9))
    frames = torch.randint(0, 3, (9,))
    torch.library.opcheck(op, (q, k, v, offsets(4, 5), 5))
    torch.library.opcheck(op, (q, k, v, offsets(4, 5), 5, 0.3, frames))
    detached = [x.detach() for x in (q, q, k, v)]
    torch.library.opcheck(
        torch.ops.genie._area_attention_backward, (*detached, offsets(4, 5), 5, None, frames)
    )


def test_compiles_as_one_graph():
    references.seed(8)
    q, k, v = (x.float().requires_grad_() for x in draw(9))
    cu = offsets(4, 5)
    compiled = torch.compile(lambda *x: op(*x, cu, 5).sin(), fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(op(q, k, v, cu, 5).sin().sum(), (q, k, v))
    for gradient, other in zip(
        torch.autograd.grad(compiled(q, k, v).sum(), (q, k, v)), expected, strict=True
    ):
        assert torch.equal(gradient, other)


def test_double_backward_is_refused_clearly():
    q, k, v = (x.requires_grad_() for x in draw(4))
    (gradient,) = torch.autograd.grad(op(q, k, v, offsets(4), 4).sin().sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward isn't supported"):
        gradient.sum().backward()


def test_autocast_computes_in_bfloat16():
    q, k, v = (x.float() for x in draw(4))
    with torch.autocast("cpu", torch.bfloat16):
        assert op(q, k.bfloat16(), v, offsets(4), 4).dtype == torch.bfloat16


def refused(error: type[Exception], message: str, **changes: object) -> None:
    q, k, v = (x.float() for x in draw(6))
    arguments = {"q": q, "k": k, "v": v, "cu_seqlens": offsets(2, 4), "max_seqlen": 4, **changes}
    with pytest.raises(error, match=message):
        op(**arguments)


def test_wrong_input_is_refused():
    refused(ValueError, "of one shape", k=torch.zeros(5, 2, 12))
    refused(ValueError, "of one shape", q=torch.zeros(6, 24))
    refused(TypeError, "float32, bfloat16 or float64", q=torch.zeros(6, 2, 12).half())
    refused(TypeError, "one dtype", v=torch.zeros(6, 2, 12).double())
    refused(ValueError, r"\(segments \+ 1\)", cu_seqlens=torch.zeros(0, dtype=torch.int32))
    refused(TypeError, "int32 or int64", cu_seqlens=torch.tensor([0.0, 6.0]))
    refused(ValueError, "rise from 0 to the number of tokens 6, got 0 .. 5", cu_seqlens=offsets(2, 3))
    refused(ValueError, "with a step down", cu_seqlens=torch.tensor([0, 4, 2, 6]))
    refused(ValueError, "segment 1 holds 4 tokens, more than max_seqlen 3", max_seqlen=3)
    refused(ValueError, r"frame_ids must be \(total\) = \(6\), got \[5\]", frame_ids=torch.zeros(5).long())
    refused(TypeError, "frame_ids must be int32 or int64", frame_ids=torch.zeros(6))
