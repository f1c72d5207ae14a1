"""torch.ops.genie.maskgit_step against a step written out in plain Python and float64."""

from __future__ import annotations

import math

import attention_references as references
import pytest
import torch

import genie_cpp  # noqa: F401  (registers the ops)

op = torch.ops.genie.maskgit_step


def draw(
    batch: int, positions: int, codes: int, dtype: torch.dtype = torch.float64
) -> dict[str, torch.Tensor]:
    return {
        "logits": (torch.randn(batch, positions, codes) * 3).to(dtype),
        "tokens": torch.randint(1000, 2000, (batch, positions)),
        "mask": torch.rand(batch, positions) < 0.7,
        "sample_noise": torch.rand(batch, positions, dtype=torch.float64),
        "confidence_noise": torch.rand(batch, positions, dtype=torch.float64),
    }


def reference(
    logits, tokens, mask, sample_noise, confidence_noise, num_masked,
    temperature=1.0, top_k=0, top_p=1.0, confidence_temperature=0.0, unmask="confidence",
):  # fmt: skip
    """The same step, position by position."""
    tokens, mask = tokens.clone(), mask.clone()
    for b in range(logits.shape[0]):
        ranked = []
        for n in mask[b].nonzero()[:, 0].tolist():
            row = logits[b, n].double()
            order = sorted(range(len(row)), key=lambda k: (-row[k].item(), k))
            if temperature == 0:
                code = order[0]
            else:
                weights = (row / temperature).softmax(0)
                kept = set(order[: top_k or len(row)])
                weights = torch.tensor([w if k in kept else 0.0 for k, w in enumerate(weights.tolist())])
                total, mass, nucleus = weights.double().sum().item(), 0.0, set()
                for k in order:
                    if mass >= top_p * total:
                        break
                    nucleus.add(k)
                    mass += weights[k].item()
                weights = [w if k in nucleus else 0.0 for k, w in enumerate(weights.tolist())]
                target, cumulative, code = sample_noise[b, n].item() * sum(weights), 0.0, None
                for k, weight in enumerate(weights):
                    cumulative += weight
                    if code is None and weight > 0 and cumulative > target:
                        code = k
            confidence = row.log_softmax(0)[code].item()
            if unmask == "random":
                confidence = confidence_noise[b, n].item()
            elif confidence_temperature:
                confidence -= confidence_temperature * math.log(-math.log(confidence_noise[b, n].item()))
            ranked.append((-confidence, n, code))
        for _, n, code in sorted(ranked)[: max(len(ranked) - num_masked, 0)]:
            tokens[b, n], mask[b, n] = code, False
    return tokens, mask


OPTIONS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.4},
    {"temperature": 3.0},
    {"top_k": 1},
    {"top_k": 3, "temperature": 2.0},
    {"top_p": 0.8},
    {"top_p": 0.9, "top_k": 5, "temperature": 1.5},
    {"confidence_temperature": 2.5},
    {"unmask": "random"},
    {"unmask": "random", "temperature": 0.0},
]


@pytest.mark.parametrize(
    "place", references.places(torch.float64, cuda=(torch.float64, torch.float32)), indirect=True
)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("codes", [1, 3, 11, 70])
def test_agrees_with_the_step_written_out(codes, options, place):
    references.seed(1)
    for num_masked in (0, 3, 7, 100):
        inputs = draw(3, 10, codes, place.dtype)
        there = {name: value.to(place.device) for name, value in inputs.items()}
        tokens, mask = (x.cpu() for x in op(**there, num_masked=num_masked, **options))
        expected_tokens, expected_mask = reference(**inputs, num_masked=num_masked, **options)
        assert torch.equal(mask, expected_mask)
        assert torch.equal(tokens, expected_tokens)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_draws_from_the_same_distribution(dtype):
    references.seed(2)
    inputs = draw(4, 16, 33, dtype)
    tokens, mask = op(**inputs, num_masked=4)
    expected_tokens, expected_mask = reference(**inputs, num_masked=4)
    assert torch.equal(mask, expected_mask) and torch.equal(tokens, expected_tokens)


def test_frequencies_follow_softmax_of_logits_over_temperature():
    references.seed(3)
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0])
    count = 20000
    tokens, _ = op(
        logits.expand(1, count, 4),
        torch.zeros(1, count, dtype=torch.int64),
        torch.ones(1, count, dtype=torch.bool),
        torch.rand(1, count),
        torch.rand(1, count),
        0,
        2.0,
    )
    frequency = tokens.bincount() if tokens.dim() == 1 else tokens[0].bincount(minlength=4)
    assert (frequency / count - (logits / 2).softmax(0)).abs().max() <= 0.015


def test_a_whole_decoding_unmasks_everything_and_never_touches_kept_tokens():
    references.seed(4)
    inputs = draw(2, 12, 9)
    inputs["mask"][:] = True
    inputs["mask"][:, 0] = False
    tokens, mask = inputs["tokens"], inputs["mask"]
    for remaining in (9, 6, 4, 2, 0):
        previous_tokens, previous_mask = tokens, mask
        inputs["logits"] = torch.randn(2, 12, 9)
        tokens, mask = op(inputs["logits"], tokens, mask, torch.rand(2, 12), torch.rand(2, 12), remaining)
        assert (mask.sum(1) == remaining).all()
        assert torch.equal(tokens[~previous_mask], previous_tokens[~previous_mask])
        assert (mask <= previous_mask).all()
    assert torch.equal(tokens[:, 0], inputs["tokens"][:, 0]) and (tokens[:, 1:] < 9).all()


def test_forbidden_codes_are_never_drawn():
    references.seed(5)
    inputs = draw(2, 50, 8)
    inputs["logits"][..., ::2] = float("-inf")
    inputs["mask"][:] = True
    tokens, _ = op(**inputs, num_masked=0)
    assert (tokens % 2 == 1).all()


def test_the_extreme_noise_draws_a_possible_code():
    logits = torch.tensor([[[float("-inf"), 0.0, 0.0, float("-inf")]]])
    ones = torch.ones(1, 1, dtype=torch.bool)
    for noise, code in ((0.0, 1), (1 - 2**-24, 2)):
        tokens, _ = op(
            logits, torch.zeros(1, 1).long(), ones, torch.full((1, 1), noise), torch.zeros(1, 1), 0
        )
        assert tokens.item() == code


def test_the_inputs_are_not_changed():
    inputs = draw(2, 5, 4)
    copies = {name: value.clone() for name, value in inputs.items()}
    op(**inputs, num_masked=1)
    assert all(torch.equal(inputs[name], copies[name]) for name in inputs)


def test_opcheck_and_one_graph():
    inputs = tuple(draw(2, 5, 4, torch.float32).values())
    torch.library.opcheck(op, (*inputs, 1))
    with_gradient = (inputs[0].requires_grad_(), *inputs[1:])
    assert not op(*with_gradient, 1)[0].requires_grad
    compiled = torch.compile(lambda *x: op(*x, 1), fullgraph=True, backend="aot_eager")
    for ours, expected in zip(compiled(*inputs), op(*inputs, 1), strict=True):
        assert torch.equal(ours, expected)


def test_empty_batch():
    tokens, mask = op(**draw(0, 5, 4), num_masked=1)
    assert tokens.shape == (0, 5) and mask.shape == (0, 5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_logits_that_cannot_be_normalised_are_refused(bad):
    inputs = draw(2, 5, 4, torch.float32)
    inputs["mask"][:] = True
    inputs["logits"][1, 3] = float("-inf")
    inputs["logits"][1, 3, 0] = float("-inf") if bad is None else bad
    with pytest.raises(ValueError, match="sample 1, position 3 hold NaN"):
        op(**inputs, num_masked=0)
    inputs["mask"][1, 3] = False
    op(**inputs, num_masked=0)


@pytest.mark.parametrize(
    "changes,error,message",
    [
        ({"logits": torch.zeros(2, 5)}, ValueError, r"logits must be \(B, N, K\)"),
        ({"logits": torch.zeros(2, 5, 0)}, ValueError, "at least one code"),
        ({"logits": torch.zeros(2, 5, 4).long()}, TypeError, "logits must be float32"),
        ({"tokens": torch.zeros(2, 4).long()}, ValueError, r"\(B, N\) = \(2, 5\)"),
        ({"tokens": torch.zeros(2, 5)}, TypeError, "tokens must be int64"),
        ({"mask": torch.full((2, 5), float("nan"))}, TypeError, "mask must be bool, got Float"),
        ({"sample_noise": torch.zeros(2, 5).long()}, TypeError, "noise must be float32 or float64"),
        ({"sample_noise": torch.ones(2, 5)}, ValueError, r"sample_noise must be in \[0, 1\), got 1"),
        ({"confidence_noise": torch.full((2, 5), float("nan"))}, ValueError, "confidence_noise must be in"),
        ({"num_masked": -1}, ValueError, "num_masked must not be negative, got -1"),
        ({"temperature": -1.0}, ValueError, "temperature must be finite, 0 or more and at most"),
        ({"temperature": float("nan")}, ValueError, "temperature must be"),
        ({"top_k": -2}, ValueError, "top_k must be 0"),
        ({"top_p": 0.0}, ValueError, r"top_p must be in \(0, 1\], got 0"),
        ({"confidence_temperature": -0.5}, ValueError, "confidence_temperature must be"),
        ({"unmask": "best"}, ValueError, "unmask is 'confidence' or 'random', not 'best'"),
    ],
)
def test_wrong_input_is_refused(changes, error, message):
    arguments = {**draw(2, 5, 4), "num_masked": 1, **changes}
    with pytest.raises(error, match=message):
        op(**arguments)
