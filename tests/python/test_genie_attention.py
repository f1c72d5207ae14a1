"""Attention chosen by configuration key inside the models: against dense references, causality in time, and a
few training steps of every combination."""

from __future__ import annotations

import itertools

import attention_references as references
import pytest
import torch
import torch.nn.functional as F
from tiny import TINY
from torch import Tensor

from genie_cpp import _C
from genie_cpp.errors import GenieError
from genie_cpp.models import DynamicsModel, Genie, LatentActionModel, VideoTokenizer

FRAMES, ROWS, CODES, ACTIONS, BATCH = 4, 4, 16, 4, 3
SECTIONS = (
    "tokenizer.encoder",
    "tokenizer.decoder",
    "latent_action.encoder",
    "latent_action.decoder",
    "dynamics.transformer",
)
SPATIAL = ("st", "vit5")
AREAS = (None, (1, 1), (2, 2), (3, 3), (9, 1), (1, 9))
CONDITIONING = ("additive", "prepend", "cross_attention")


def config(spatial: str, area: tuple[int, int] | None, conditioning: str, *more: str) -> _C.Config:
    entries = [
        "tokenizer.initialization=random",
        f"dynamics.action_conditioning={conditioning}",
        "dynamics.cross_attention_every=1",
    ]
    for section in SECTIONS:
        entries += [f"{section}.depth=2", f"{section}.spatial_attention={spatial}"]
        if area:
            entries += [
                f"{section}.use_area_attention=true",
                f"{section}.area_spatial_splits={area[0]}",
                f"{section}.area_temporal_splits={area[1]}",
                f"{section}.area_attention_layers=[0, 1]",
            ]
    result = _C.Config.parse(TINY)
    result.override([*entries, *more])
    return result


def shake(model: torch.nn.Module, seed: int) -> None:
    """Weights so large that every path shows in the outputs; cross-attention no longer the identity."""
    print(f"seed {seed}")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)


def video(seed: int) -> Tensor:
    return torch.rand(BATCH, FRAMES, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def inputs(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(CODES, (BATCH, FRAMES, ROWS * ROWS), generator=generator)
    actions = torch.randint(ACTIONS, (BATCH, FRAMES - 1), generator=generator)
    mask = torch.rand(tokens.shape, generator=generator) < 0.3
    return tokens, actions, mask


ALL = list(itertools.product(SPATIAL, AREAS, CONDITIONING))


@pytest.mark.parametrize(("spatial", "area", "conditioning"), ALL)
def test_every_combination_trains(spatial: str, area: tuple[int, int] | None, conditioning: str) -> None:
    torch.manual_seed(0)
    print("seed 0")
    model = DynamicsModel(config(spatial, area, conditioning)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    tokens, actions, _ = inputs(1)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:, 0] = False
    losses = []
    for _ in range(6):
        logits = model(tokens, actions, mask)
        loss = F.cross_entropy(logits[mask], tokens[mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.02
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    # Of positions beyond those the clips have, and of what nothing follows, there may be a gradient of 0.
    assert not without, without


@pytest.mark.parametrize(("spatial", "area"), list(itertools.product(SPATIAL, AREAS)))
def test_tokenizer_and_latent_action_model_train(spatial: str, area: tuple[int, int] | None) -> None:
    torch.manual_seed(0)
    print("seed 0")
    for model in (
        VideoTokenizer(config(spatial, area, "additive")),
        LatentActionModel(config(spatial, area, "additive")),
    ):
        optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-3)
        losses = []
        for _ in range(8):
            out = model(video(1))
            prediction, target = (
                (out["reconstruction"], out["patches"])
                if "patches" in out
                else (out["prediction"], out["target"])
            )
            loss = (prediction - target).square().sum(-1).mean() + out["quantizer_loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("changed", [1, FRAMES - 1])
@pytest.mark.parametrize(("spatial", "area", "conditioning"), ALL)
@torch.no_grad()
def test_no_logit_depends_on_a_later_frame(
    spatial: str, area: tuple[int, int] | None, conditioning: str, changed: int
) -> None:
    model = DynamicsModel(config(spatial, area, conditioning)).eval()
    shake(model, 3)
    tokens, actions, mask = inputs(1)
    other_tokens, other_actions, other_mask = inputs(2)
    before = model(tokens, actions, mask)
    tokens = torch.cat([tokens[:, :changed], other_tokens[:, changed:]], 1)
    mask = torch.cat([mask[:, :changed], other_mask[:, changed:]], 1)
    actions = torch.cat([actions[:, : changed - 1], other_actions[:, changed - 1 :]], 1)
    after = model(tokens, actions, mask)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert (before[:, changed:] - after[:, changed:]).abs().max() >= 1e-3


@pytest.mark.parametrize(("spatial", "area"), list(itertools.product(SPATIAL, AREAS)))
@torch.no_grad()
def test_no_token_or_action_depends_on_a_later_frame(spatial: str, area: tuple[int, int] | None) -> None:
    model = Genie(config(spatial, area, "additive")).eval()
    shake(model, 3)
    for changed in range(1, FRAMES):
        mixed = torch.cat([video(1)[:, :changed], video(2)[:, changed:]], 1)
        encode = model.tokenizer.encode
        assert torch.equal(encode(video(1))[:, :changed], encode(mixed)[:, :changed])
        infer = model.latent_action.infer
        assert torch.equal(infer(video(1))[:, : changed - 1], infer(mixed)[:, : changed - 1])
        tokens, other = inputs(1)[0], inputs(2)[0]
        tokens2 = torch.cat([tokens[:, :changed], other[:, changed:]], 1)
        decode = model.tokenizer.decode
        assert torch.equal(decode(tokens)[:, :changed], decode(tokens2)[:, :changed])


@pytest.mark.parametrize(("spatial", "area", "conditioning"), ALL)
@torch.no_grad()
def test_the_first_frames_do_not_depend_on_how_many_follow(
    spatial: str, area: tuple[int, int] | None, conditioning: str
) -> None:
    model = DynamicsModel(config(spatial, area, conditioning)).eval()
    shake(model, 3)
    tokens, actions, mask = inputs(1)
    whole = model(tokens, actions, mask)
    for frames in range(1, FRAMES):
        part = model(tokens[:, :frames], actions[:, : frames - 1], mask[:, :frames])
        references.assert_close(part, whole[:, :frames], 1e-5)


@pytest.mark.parametrize(("spatial", "area", "conditioning"), ALL)
@torch.no_grad()
def test_generation_with_the_cache_chooses_what_the_whole_window_does(
    spatial: str, area: tuple[int, int] | None, conditioning: str
) -> None:
    """One step at temperature 0 takes the best token everywhere: no order of unmasking to follow."""
    model = Genie(config(spatial, area, conditioning)).eval()
    shake(model, 3)
    prompt, actions, _ = inputs(1)
    prompt = prompt[:, :2]
    generated = model.generate(prompt, actions, steps=1, temperature=0)
    frames = list(prompt.unbind(1))
    for new in range(2):
        tokens = torch.stack([*frames, torch.zeros_like(frames[0])], 1)
        mask = torch.zeros_like(tokens, dtype=torch.bool)
        mask[:, -1] = True
        logits = model.dynamics(tokens, actions[:, : len(frames)], mask)[:, -1]
        best, second = logits.topk(2).values.unbind(-1)
        sure = best - second > 1e-3  # elsewhere rounding may decide
        assert sure.float().mean() > 0.9
        assert torch.equal(generated[:, new][sure], logits.argmax(-1)[sure])
        frames.append(generated[:, new])


def area_reference(weights: dict[str, Tensor], x: Tensor, heads: int, splits: tuple[int, int]) -> Tensor:
    """Area attention of frames with a dense mask; further tokens are copied into each area of their frame."""
    batch, frames, tokens, _ = x.shape
    further = tokens - ROWS * ROWS
    spatial, temporal = min(splits[0], ROWS), splits[1]
    entries = []  # (area, frame, token in the frame, grid id)
    for t in range(frames):
        at = min(t // max(1, FRAMES // temporal), temporal - 1)
        for n in range(ROWS * ROWS):
            ah = min(n // ROWS // max(1, ROWS // splits[0]), splits[0] - 1)
            entries.append((at * spatial + ah, t, n, t * ROWS * ROWS + n))
        for e in range(further):
            entries += [(at * spatial + s, t, ROWS * ROWS + e, t * ROWS * ROWS) for s in range(spatial)]
    area, frame, token, ids = (torch.tensor(column) for column in zip(*entries, strict=True))
    chosen = x[:, frame, token]
    qkv = F.linear(chosen, weights["qkv.weight"], weights["qkv.bias"])
    head_dim = qkv.shape[-1] // (3 * heads)
    q, k, v = qkv.view(batch, len(entries), 3, heads, head_dim).unbind(2)
    q, k = (references.rope_3d(y, ids.expand(batch, -1), ROWS, ROWS) for y in (q, k))
    visible = (area[:, None] == area[None]) & (frame[None] <= frame[:, None])
    out = references.attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), head_dim**-0.5, visible
    )
    out = out.transpose(1, 2).flatten(2)
    merged = torch.zeros(batch, frames, tokens, out.shape[-1], dtype=x.dtype)
    merged = merged.index_put((torch.arange(batch)[:, None], frame, token), out, accumulate=True)
    copies = torch.ones(tokens, dtype=x.dtype)
    copies[ROWS * ROWS :] = spatial
    return F.linear(merged / copies[:, None], weights["proj.weight"], weights["proj.bias"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("conditioning", ["additive", "prepend"])
@pytest.mark.parametrize("splits", [(1, 1), (2, 2), (3, 3), (9, 9)])
def test_frame_area_attention_is_a_dense_mask(
    splits: tuple[int, int], conditioning: str, dtype: torch.dtype
) -> None:
    model = DynamicsModel(config("st", splits, conditioning)).to(dtype)
    attention = model.transformer.blocks[0].attn
    shake(attention, 4)
    weights = {name: p.detach().double().requires_grad_() for name, p in attention.named_parameters()}
    tokens = ROWS * ROWS + (conditioning == "prepend")
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(BATCH, FRAMES, tokens, 16, generator=generator).to(dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    ours, expected = attention(x), area_reference(weights, exact, 2, splits)
    references.assert_close(ours, expected, references.TOLERANCE[dtype])
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    names = list(weights)
    parameters = dict(attention.named_parameters())
    found = torch.autograd.grad(ours, [x, *(parameters[n] for n in names)], upstream.to(dtype))
    wanted = torch.autograd.grad(expected, [exact, *(weights[n] for n in names)], upstream.to(dtype).double())
    for name, a, b in zip(["x", *names], found, wanted, strict=True):
        references.assert_close(a, b, references.TOLERANCE[dtype], f"gradient of {name}")


@torch.no_grad()
def test_an_area_of_a_frame_does_not_see_the_others() -> None:
    attention = DynamicsModel(config("st", (2, 2), "additive")).eval().transformer.blocks[0].attn
    shake(attention, 4)
    x = torch.randn(BATCH, FRAMES, ROWS * ROWS, 16, generator=torch.Generator().manual_seed(5))
    before = attention(x)
    changed = x.clone()
    changed[:, 2:, : 2 * ROWS] += 1  # the upper rows of the second half of the clip
    after = attention(changed)
    assert torch.equal(before[:, :2], after[:, :2])
    assert torch.equal(before[:, :, 2 * ROWS :], after[:, :, 2 * ROWS :])
    assert (before[:, 2:, : 2 * ROWS] - after[:, 2:, : 2 * ROWS]).abs().min() > 0


def test_layers_with_area_attention_are_the_ones_asked_for() -> None:
    for entries, wanted in [
        ([], [True, True, True, False]),  # the first three quarters
        (["dynamics.transformer.area_attention_layers=[1, 3]"], [False, True, True, False]),
        (["dynamics.transformer.area_attention_layers=[2, 2]"], [False] * 4),
        (["dynamics.transformer.area_attention_layers=[]"], [True, True, True, False]),
    ]:
        settings = _C.Config.parse(TINY)
        settings.override(
            ["dynamics.transformer.depth=4", "dynamics.transformer.use_area_attention=true", *entries]
        )
        blocks = DynamicsModel(settings).transformer.blocks
        assert [hasattr(block, "attn") for block in blocks] == wanted


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        (["dynamics.transformer.area_attention_layers=[0, 9]"], "area_attention_layers ends at 9"),
        (["dynamics.transformer.area_attention_layers=[3]"], "start <= end"),
        (["dynamics.transformer.area_attention_layers=[1, x]"], "'x' is no integer"),
        (["dynamics.transformer.area_attention_layers=2"], "start <= end"),
        (["dynamics.transformer.area_spatial_splits=0"], "area_spatial_splits"),
        (["dynamics.transformer.spatial_attention=vit"], "did you mean vit5"),
        (
            ["dynamics.transformer.spatial_attention=vit5", "dynamics.transformer.num_registers=3"],
            "no square number",
        ),
        (
            ["dynamics.transformer.spatial_attention=vit5", "dynamics.transformer.head_dim=6"],
            "turns channels in fours",
        ),
    ],
)
def test_a_value_that_cannot_be_is_named(entries: list[str], named: str) -> None:
    with pytest.raises(GenieError, match=named.replace("[", r"\[")):
        _C.Config.parse(TINY).override(entries)


def test_vit5_registers_are_weights_of_the_transformer_and_reach_the_output() -> None:
    model = DynamicsModel(config("vit5", None, "prepend")).eval()
    shake(model, 3)
    names = dict(model.named_parameters())
    assert names["transformer.cls_token"].shape == (16,) and names["transformer.registers"].shape == (4, 16)
    tokens, actions, mask = inputs(1)
    logits = model(tokens, actions, mask)
    assert logits.shape == (BATCH, FRAMES, ROWS * ROWS, CODES)
    logits.square().sum().backward()
    for name in ("transformer.cls_token", "transformer.registers"):
        assert names[name].grad.abs().min() > 0
