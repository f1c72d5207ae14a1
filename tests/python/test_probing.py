"""Frozen evaluation: the probe against plain PyTorch, what it learns, how clips are split, manifests."""

from __future__ import annotations

import copy
from pathlib import Path

import attention_references as references
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from worlds import write_shifting_world

from genie_cpp import _C, GenieError
from genie_cpp.probing import (
    AttentiveClassifier,
    ClipSet,
    Features,
    ProbeRecipe,
    Splits,
    action_splits,
    cache_features,
    game_splits,
    probe_encoders,
    train_probes,
)
from genie_cpp.vision import VisionTransformer

WIDTH, HEADS = 24, 2
QUICK = ProbeRecipe(batch_size=8, epochs=6, learning_rates=(3e-3, 1e-3), depth=1, num_heads=HEADS)


def reference(weights: dict[str, Tensor], x: Tensor, heads: int, depth: int) -> Tensor:
    """The probe in plain PyTorch."""

    def linear(name: str, y: Tensor) -> Tensor:
        return F.linear(y, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(name: str, y: Tensor) -> Tensor:
        return F.layer_norm(y, y.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (y.unflatten(2, (heads, -1)).transpose(1, 2) for y in (q, k, v))
        return references.attention(q, k, v, q.shape[-1] ** -0.5).transpose(1, 2).flatten(2)

    def mlp(name: str, y: Tensor) -> Tensor:
        return linear(f"{name}.mlp.fc2", F.gelu(linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", y))))

    for i in range(depth - 1):
        block = f"pooler.blocks.{i}"
        x = x + linear(
            f"{block}.attn.proj", attend(*linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x)).chunk(3, -1))
        )
        x = x + mlp(block, x)
    pool = "pooler.cross_attention_block"
    query = weights["pooler.query_tokens"].expand(len(x), -1, -1)
    keys, others = linear(f"{pool}.xattn.kv", norm(f"{pool}.norm1", x)).chunk(2, -1)
    query = query + attend(linear(f"{pool}.xattn.q", query), keys, others)
    return linear("linear", query + mlp(pool, query))[:, 0]


@pytest.mark.parametrize("depth,bias", [(1, True), (3, True), (2, False)])
def test_the_probe_agrees_with_plain_pytorch_and_so_do_its_gradients(depth, bias):
    references.seed(1)
    probe = AttentiveClassifier(WIDTH, HEADS, depth=depth, qkv_bias=bias, num_classes=5).double()
    with torch.no_grad():
        for parameter in probe.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    x = torch.randn(3, 7, WIDTH, dtype=torch.float64, requires_grad=True)
    weights = {name: p.detach().clone().requires_grad_() for name, p in probe.named_parameters()}
    ours, expected = probe(x), reference(weights, x, HEADS, depth)
    references.assert_close(ours, expected, 1e-12)
    upstream = torch.randn_like(ours)
    gradients = torch.autograd.grad(ours, [x, *probe.parameters()], upstream)
    for a, b in zip(gradients, torch.autograd.grad(expected, [x, *weights.values()], upstream), strict=True):
        references.assert_close(a, b, 1e-10)


def test_the_probes_weights_have_the_originals_names_and_start():
    references.seed(2)
    probe = AttentiveClassifier(192, 3, depth=4, num_classes=7)
    names = {name for name in probe.state_dict() if not name.startswith("pooler.blocks.")}
    pool = "pooler.cross_attention_block."
    parts = [pool + part for part in ("norm1", "norm2", "xattn.q", "xattn.kv", "mlp.fc1", "mlp.fc2")]
    assert names == {"pooler.query_tokens"} | {
        f"{p}.{k}" for p in [*parts, "linear"] for k in ("weight", "bias")
    }
    assert len(probe.pooler.blocks) == 3
    for layer, name in enumerate([pool, *(f"pooler.blocks.{i}." for i in range(3))], 1):
        spread = probe.state_dict()[f"{name}mlp.fc2.weight"].std().item() * (2 * layer) ** 0.5
        assert abs(spread / 0.02 - 1) <= 0.05, name
    assert "pooler.blocks.0.attn.proj.weight" in probe.state_dict()
    assert not any(name.startswith("pooler.blocks") for name in AttentiveClassifier(24, 2).state_dict())


def test_the_probe_does_not_care_for_the_order_of_tokens_and_can_be_copied():
    references.seed(3)
    probe = AttentiveClassifier(WIDTH, HEADS, depth=2, num_classes=4).double()
    x = torch.randn(2, 9, WIDTH, dtype=torch.float64)
    references.assert_close(probe(x[:, torch.randperm(9)]), probe(x), 1e-12)
    assert torch.equal(copy.deepcopy(probe)(x), probe(x))


@pytest.mark.parametrize(
    "options,message",
    [
        ({"num_heads": 5}, "dim=24 is not divisible"),
        ({"depth": 0}, "at least 1, got 0"),
        ({"num_classes": 0}, "and 0"),
    ],
)
def test_a_probe_of_wrong_arguments_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AttentiveClassifier(**{"embed_dim": WIDTH, "num_heads": 2, **options})


def test_a_probe_refuses_features_that_do_not_fit():
    probe = AttentiveClassifier(WIDTH, HEADS)
    with pytest.raises(ValueError, match=r"features \(B,N,24\)"):
        probe(torch.zeros(2, 3, 8))
    with pytest.raises(TypeError):
        probe(torch.zeros(2, 3, WIDTH, dtype=torch.float64))


# The sweep


def marked(count: int, seed: int, classes: int = 3) -> Features:
    """The class is written into one token, at any place, so that only attention finds it."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, 6, WIDTH, generator=generator) * 0.3
    labels = torch.randint(0, classes, (count,), generator=generator)
    place = torch.randint(0, 6, (count,), generator=generator)
    values[torch.arange(count), place, labels] += 4
    return Features(values, labels)


def test_a_sweep_learns_what_can_be_learned_and_nothing_from_noise():
    train, test = marked(120, 1), marked(60, 2)
    result = train_probes(train, marked(60, 3), test, recipe=QUICK, seed=5)
    assert len(result.heads) == 2 and result.accuracy >= 0.9
    noise = Features(torch.randn(120, 6, WIDTH), train.labels)
    blind = train_probes(noise, test, Features(torch.randn(60, 6, WIDTH), test.labels), recipe=QUICK, seed=5)
    assert blind.accuracy <= 0.6


def test_a_sweep_is_the_same_for_a_seed_and_another_for_another():
    train, test = marked(40, 1), marked(30, 2)
    results = [train_probes(train, test, recipe=QUICK, seed=seed).heads for seed in (1, 1, 2)]
    assert results[0] == results[1] and results[0] != results[2]


def test_the_best_probe_is_chosen_without_a_look_at_the_test_clips():
    train, chosen_by, test = marked(60, 1), marked(40, 2), marked(40, 3)
    swapped = Features(test.values, (test.labels + 1) % 3)
    result, other = (train_probes(train, chosen_by, t, recipe=QUICK, seed=0) for t in (test, swapped))
    assert result.best.learning_rate == other.best.learning_rate
    assert result.best.selection == max(head.selection for head in result.heads)
    assert result.accuracy == result.best.test and other.accuracy < result.accuracy


def test_a_sweep_has_a_probe_for_each_rate_and_decay_and_no_learning_at_rate_zero():
    recipe = ProbeRecipe(8, 1, (0.0, 1e-3), (0.0, 0.1), depth=1, num_heads=HEADS)
    heads = train_probes(marked(24, 1), marked(24, 2), recipe=recipe).heads
    assert [(h.learning_rate, h.weight_decay) for h in heads] == [(0, 0), (0, 0.1), (1e-3, 0), (1e-3, 0.1)]
    assert heads[0].loss == pytest.approx(heads[1].loss, abs=0) and heads[2].loss != heads[0].loss
    assert ProbeRecipe().learning_rates == (5e-3, 3e-3, 1e-3, 3e-4, 1e-4)
    with pytest.raises(GenieError, match="learning_rates must be numbers"):
        ProbeRecipe(learning_rates=())
    with pytest.raises(GenieError, match="labels must be 0..1"):
        train_probes(marked(24, 1), marked(24, 2), num_classes=2, recipe=recipe)


# Clips


@pytest.fixture
def marked_file(tmp_path: Path) -> Path:
    """Each frame's brightness is 10 times its episode plus the action taken from it."""
    path = tmp_path / "marked.h5"
    with _C.VideoWriter(str(path), 8, 8, fps=5, num_actions=7) as writer:
        for episode in range(10):
            actions = (torch.arange(12) + episode) % 7
            frames = actions.view(-1, 1, 1, 1).expand(-1, 8, 8, 3).to(torch.uint8) + 10 * episode
            writer.append(frames.contiguous(), actions)
            writer.end_episode()
    return path


def sets_of(path: Path) -> list[ClipSet]:
    splits = action_splits(path, 4, (50, 50, 50))
    assert splits.test is not None
    return [splits.training, splits.selection, splits.test]


def test_no_episode_is_in_two_sets(marked_file: Path) -> None:
    sets = sets_of(marked_file)
    episodes = [{int(c.read(i)[0, 0, 0, 0]) // 10 for i in range(len(c))} for c in sets]
    assert sorted(episode for part in episodes for episode in part) == list(range(10))
    assert [len(part) for part in episodes] == [5, 2, 3]


def test_an_actions_label_is_the_one_between_the_middle_frames(marked_file: Path) -> None:
    for clips in sets_of(marked_file):
        for i in range(len(clips)):
            assert int(clips.labels[i]) == int(clips.read(i)[1, 0, 0, 0]) % 10


def test_a_games_label_is_the_number_of_its_file(marked_file: Path, tmp_path: Path) -> None:
    dark = tmp_path / "dark.h5"
    with _C.VideoWriter(str(dark), 8, 8, fps=5) as writer:
        for _ in range(3):
            writer.append(torch.zeros(8, 8, 8, 3, dtype=torch.uint8))
            writer.end_episode()
    splits = game_splits([dark, marked_file], 4, (40, 40, 40))
    assert splits.classes == ["dark", "marked"]
    bright = splits.training.read
    for i in range(len(splits.training)):
        assert int(splits.training.labels[i]) == int(bright(i).max() > 0)


def test_what_cannot_be_split_is_refused(tmp_path: Path) -> None:
    path, bare = tmp_path / "w.h5", tmp_path / "bare.h5"
    write_shifting_world(path)
    write_shifting_world(bare, actions=False)
    with pytest.raises(GenieError, match="at least two video files"):
        game_splits([path], 4)
    with pytest.raises(GenieError, match="no recorded actions"):
        action_splits(bare, 4)
    with pytest.raises(GenieError, match="episode has 4000 frames"):
        game_splits([path, bare], 4000)


def test_features_are_the_encoders_and_one_table_compares_encoders(tmp_path: Path) -> None:
    references.seed(7)
    encoder = VisionTransformer(4, 2, embed_dim=WIDTH, depth=2, num_heads=2)
    generator = torch.Generator().manual_seed(0)

    def clips(count: int) -> ClipSet:
        labels = torch.randint(0, 2, (count,), generator=generator)
        videos = torch.randint(0, 80, (count, 4, 8, 8, 3), generator=generator, dtype=torch.uint8)
        videos[labels == 1] += 170
        return ClipSet(labels, videos.__getitem__)

    splits = Splits(["dark", "bright"], clips(40), clips(16), clips(16))
    features = cache_features(encoder, splits.selection, 5, tmp_path / "f.bin")
    again = cache_features(encoder, splits.selection, 16)
    assert (
        features.values.shape == (16, 8, WIDTH) and (tmp_path / "f.bin").stat().st_size == 16 * 8 * WIDTH * 4
    )
    references.assert_close(features.values, again.values, 1e-5)
    table = probe_encoders(
        {"plain": lambda: encoder}, "light", splits, QUICK, (0, 1), cache=tmp_path / "cache"
    )
    assert [row["seed"] for row in table.rows] == [0, 1] and all(row["top1"] == 1 for row in table.rows)
    assert "| light | plain | 100.0 ± 0.0 | 100.0, 100.0 |" in table.markdown()
    assert not list((tmp_path / "cache").glob("*.bin"))
    table.write(tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().startswith("task,encoder,seed,top1,")
