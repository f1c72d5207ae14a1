"""All three phases by genie-train, then what the command line makes of the result."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from PIL import Image

import genie_cpp
from genie_cpp import _C
from genie_cpp.runs import PHASES, checkpoints, read_metrics, series

STEPS = 6
STACK = "{depth: 1, dim: 16, heads: 2}"
PHASE = f"{{steps: {STEPS}, batch_size: 2, warmup_steps: 2, learning_rate: 1e-3}}"
TINY = f"""
data: {{num_frames: 4, height: 16, width: 16, num_workers: 1}}
tokenizer:
  patch_size: 4
  quantizer: {{num_codes: 16, code_dim: 8}}
  encoder: {STACK}
  decoder: {STACK}
latent_action:
  patch_size: 8
  quantizer: {{num_codes: 4, code_dim: 4}}
  encoder: {STACK}
  decoder: {STACK}
dynamics: {{transformer: {STACK}}}
inference: {{steps: 2, temperature: 1}}
training:
  device: cpu
  log_every: 2
  validate_every: 3
  validation_clips: 2
  checkpoint_every: 3
  tokenizer: {PHASE}
  latent_action: {PHASE}
  dynamics: {PHASE}
"""


def program(name: str) -> str:
    found = shutil.which(name, path=sysconfig.get_path("scripts"))
    assert found is not None, f"{name} is not among the environment's programs"
    return found


def execute(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(argument) for argument in arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def genie(*arguments: object) -> subprocess.CompletedProcess[str]:
    return execute(sys.executable, "-m", "genie_cpp.cli", *arguments)


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
    for phase in PHASES:
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
