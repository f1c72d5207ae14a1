"""Training that is killed again and again, or finds the disk full, loses nothing."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tiny import TINY, execute, program

from genie_cpp import _C
from genie_cpp.runs import read_metrics, series

KILLS = 30
PHASES = ["tokenizer", "latent_action", "dynamics"]
SETTINGS = [
    "training.num_threads=1",
    "training.checkpoint_every=2",
    "training.log_every=3",
    "training.validate_every=40",
    "training.tokenizer.steps=80",
    "training.latent_action.steps=80",
    "training.dynamics.steps=400",
    "tokenizer.quantizer.num_codes=64",
    "tokenizer.quantizer.dead_code_steps=3",
    "tokenizer.encoder.dropout=0.1",
    "latent_action.history_mask=0.3",
    "dynamics.context_corruption=0.2",
    "dynamics.transformer.attention_dropout=0.1",
]


def steps_saved(run: Path) -> int:
    total = 0
    for phase in PHASES:
        latest = run / phase / "checkpoints" / "latest"
        total += int(latest.read_text().strip().removeprefix("step_")) if latest.is_file() else 0
    return total


def command(folder: Path, run: str, settings: list[str]) -> list[str]:
    sets = [part for entry in settings for part in ("--set", entry)]
    data = ["--config", str(folder / "tiny.yaml"), "--data", str(folder / "world.h5")]
    return [program("genie-train"), *data, "--out", str(folder / run), *sets, "--resume"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _C.write_synthetic_world(str(tmp_path / "world.h5"), 120, 16, 16, 30, 0)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


@pytest.mark.parametrize("seed", [20240223])
def test_a_run_killed_thirty_times_ends_with_the_weights_of_one_that_never_was(
    folder: Path, seed: int
) -> None:
    draw = random.Random(seed)
    run, inside_a_write, resumed_from = folder / "killed", 0, []
    for number in range(KILLS):
        process = subprocess.Popen(command(folder, "killed", SETTINGS), stderr=subprocess.DEVNULL)
        begin, before = time.monotonic(), steps_saved(run)
        # A third at any time from the start on, the others once some checkpoints more were written.
        more, latest = (15, draw.uniform(0, 0.6)) if number % 3 == 0 else (draw.randint(1, 12), 60.0)
        while steps_saved(run) < before + more and time.monotonic() < begin + latest:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.02))
        assert process.poll() is None, "training ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        inside_a_write += any(run.glob("*/checkpoints/.tmp-*"))
        resumed_from.append(steps_saved(run))
    print(f"seed {seed}: killed at {resumed_from} saved steps, {inside_a_write} times inside a write")
    assert inside_a_write >= 3
    assert resumed_from[-1] > resumed_from[0]

    for name in ("killed", "whole"):
        result = execute(*command(folder, name, SETTINGS))
        assert result.returncode == 0, result.stderr
    for phase in PHASES:
        newest = f"{phase}/checkpoints/{(run / phase / 'checkpoints' / 'latest').read_text().strip()}"
        for file in ("model.safetensors", "optimizer.safetensors", "state.json"):
            killed, whole = (folder / name / newest / file for name in ("killed", "whole"))
            assert killed.read_bytes() == whole.read_bytes(), (phase, file)
        for key in ("loss", "gradient_norm", "codebook_usage", "validation_loss", "validation_accuracy"):
            found = [series(read_metrics(folder / name, phase), key) for name in ("killed", "whole")]
            assert found[0] == found[1], (phase, key)


def test_where_a_checkpoint_finds_no_room_training_ends_and_names_the_last_good_one(folder: Path) -> None:
    """Room: the greatest size that a file may have."""
    settings = ["training.num_threads=1", "training.checkpoint_every=3", "tokenizer.encoder.dim=128"]
    result = execute(
        *command(folder, "run", [*settings, "training.tokenizer.steps=3"]), "--phase", "tokenizer"
    )
    assert result.returncode == 0, result.stderr
    kept = folder / "run" / "tokenizer" / "checkpoints" / "step_00000003"
    before = {file.name: file.read_bytes() for file in kept.iterdir()}
    limit = len(before["model.safetensors"]) // 2
    assert limit > (folder / "run" / "config.yaml").stat().st_size

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    again = [*command(folder, "run", [*settings, "training.tokenizer.steps=300"]), "--phase", "tokenizer"]
    stopped = subprocess.run(again, capture_output=True, text=True, timeout=120, preexec_fn=little_room)
    assert stopped.returncode == 1
    assert "was not written" in stopped.stderr and f"last good checkpoint is {kept}" in stopped.stderr
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == before
    assert (kept.parent / "latest").read_text() == "step_00000003\n"
    assert not list(kept.parent.glob("step_00000006*"))
    more = command(folder, "run", [*settings, "training.tokenizer.steps=6"])
    assert execute(*more, "--phase", "tokenizer").returncode == 0
    assert series(read_metrics(folder / "run", "tokenizer"), "loss")[0][-1] == 6
