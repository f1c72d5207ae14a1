"""All three phases by genie-train, then what the command line makes of the result."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import STEPS, TINY, execute, genie, program

import genie_cpp
from genie_cpp import _C
from genie_cpp.evaluation import metrics
from genie_cpp.runs import checkpoints, read_metrics, series


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    _C.write_synthetic_world(str(folder / "world.h5"), 240, 16, 16, 30, 0)
    (folder / "tiny.yaml").write_text(TINY)
    result = execute(
        program("genie-train"),
        "--config",
        folder / "tiny.yaml",
        "--data",
        folder / "world.h5",
        "--out",
        folder / "run",
    )
    assert result.returncode == 0, result.stderr
    return folder


def test_every_phase_logs_and_keeps_a_checkpoint(world: Path) -> None:
    assert (world / "run" / "config.yaml").is_file()
    for phase in _C.phase_names(_C.Config()):
        entries = read_metrics(world / "run", phase)
        steps, losses = series(entries, "loss")
        assert steps and steps[-1] == STEPS
        assert all(math.isfinite(loss) for loss in losses)
        assert any(key.startswith("validation_") for entry in entries for key in entry)
        assert checkpoints(world / "run", phase)


def test_the_trained_world_answers_in_the_shapes_it_promises(world: Path) -> None:
    model = genie_cpp.load(world / "run")
    video = genie_cpp.viz.to_model(_C.VideoFile(str(world / "world.h5")).read_frames(0, 4))[None]
    tokens = model.tokenizer.encode(video)
    assert tokens.shape == (1, 4, 16)
    assert 0 <= int(tokens.min()) and int(tokens.max()) < model.tokenizer.num_codes == 16
    assert model.tokenizer.decode(tokens).shape == video.shape
    actions = model.latent_action.infer(video)
    assert actions.shape == (1, 3) and int(actions.max()) < model.latent_action.num_actions == 4


@torch.no_grad()
def test_loaded_models_reach_what_training_validated_last(world: Path) -> None:
    """Same weights, same clips: encode, decode, infer and the dynamics give the logged figures again."""
    model = genie_cpp.load(world / "run")
    clips = _C.ClipDataset(_C.VideoFile(str(world / "world.h5")), model.config, "validation")
    video = genie_cpp.viz.to_model(torch.stack([clips.get(index)[0] for index in clips.spread(2)]))
    tokens, actions = model.tokenizer.encode(video), model.latent_action.infer(video)
    seen = model.latent_action(video)
    assert torch.equal(seen["actions"], actions)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    mask[:, -1] = True
    logits = model.dynamics(tokens, actions, mask)[:, -1]
    found = {
        ("tokenizer", "psnr"): metrics.psnr(model.tokenizer.decode(tokens), video).mean(),
        ("latent_action", "psnr"): patch_psnr(seen["prediction"].clamp(0, 1), seen["target"]),
        ("latent_action", "copy_psnr"): metrics.psnr(video[:, :-1], video[:, 1:]).mean(),
        ("dynamics", "cross_entropy"): F.cross_entropy(logits.flatten(0, 1), tokens[:, -1].flatten()),
        ("dynamics", "accuracy"): (logits.argmax(-1) == tokens[:, -1]).double().mean(),
    }
    for (phase, name), value in found.items():
        _, logged = series(read_metrics(world / "run", phase), f"validation_{name}")
        assert abs(float(value) - logged[-1]) <= 1e-3, (phase, name)


def patch_psnr(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (-10 * (a - b).square().mean((2, 3)).log10()).mean()


def test_generate_writes_a_video_that_the_seed_decides(world: Path) -> None:
    contents = []
    for name, seed in (("a.png", 5), ("b.png", 5), ("c.gif", 6)):
        result = genie(
            *("generate", "--model", world / "run", "--prompt", f"{world / 'world.h5'}:40"),
            *("--actions", "0,1,2,3,0,1", "--context", 2, "--seed", seed, "--out", world / name),
        )
        assert result.returncode == 0, result.stderr
        contents.append((world / name).read_bytes())
    assert contents[0] == contents[1]
    assert Image.open(world / "a.png").size == (8 * 64 + 7 * 2, 64)


def test_eval_fills_in_every_figure(world: Path) -> None:
    out = world / "eval.json"
    result = genie(
        *("eval", "--model", world / "run", "--data", world / "world.h5", "--json", out),
        *("--clips", 4, "--rollouts", 2),
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(out.read_text())
    assert figures["about"]["split"] == "validation"
    for key in ("tokenizer_psnr", "kmeans_psnr", "dynamics_accuracy", "dynamics_cross_entropy"):
        assert math.isfinite(figures[key])
    assert len(figures["rollout_psnr"]) == len(figures["delta_psnr"]) == 10
    assert out.with_suffix(".png").is_file()


def test_python_trains_the_same_way(world: Path) -> None:
    result = genie(
        *("train", "--config", world / "tiny.yaml", "--data", world / "world.h5", "--out", world / "python"),
        *("--phase", "tokenizer"),
    )
    assert result.returncode == 0, result.stderr
    native = series(read_metrics(world / "run", "tokenizer"), "loss")
    assert series(read_metrics(world / "python", "tokenizer"), "loss") == native


def test_bad_data_ends_with_one_error(world: Path) -> None:
    (world / "broken.h5").write_bytes((world / "world.h5").read_bytes()[:1000])
    for command in ([program("genie-train")], [sys.executable, "-m", "genie_cpp.cli", "train"]):
        result = execute(
            *command, "--config", world / "tiny.yaml", "--data", world / "broken.h5", "--out", world / "none"
        )
        assert result.returncode == 1
        assert "broken.h5" in result.stderr and "Traceback" not in result.stderr
