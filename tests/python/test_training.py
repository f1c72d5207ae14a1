"""Training from Python and by genie-train: stopping, resuming, and what a callback may do."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import STEPS, TINY, execute, program

import genie_cpp
from genie_cpp import _C, training
from genie_cpp.errors import GenieError
from genie_cpp.runs import checkpoints, read_metrics, series

LONG = "training.tokenizer.steps=1000000"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    _C.write_synthetic_world(str(folder / "world.h5"), 120, 16, 16, 30, 0)
    (folder / "tiny.yaml").write_text(TINY)
    return folder


def settings(folder: Path, *entries: str) -> _C.Config:
    config = _C.Config.load(str(folder / "tiny.yaml"))
    config.override([f"data.path={folder / 'world.h5'}", *entries])
    return config


def interrupt_when_under_way(command: list[str], run: Path) -> subprocess.CompletedProcess[str]:
    """Sends Ctrl-C's signal once the tokenizer's first figures are logged."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not read_metrics(run, "tokenizer") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - begin <= 30
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def stopped_step(run: Path) -> int:
    names = [name for name in checkpoints(run, "tokenizer") if name.startswith("step_")]
    assert names, "no checkpoint was saved"
    return int(names[-1].removeprefix("step_"))


SCRIPT = """
import sys
from genie_cpp import _C, training
config = _C.Config.load(sys.argv[1])
config.override(sys.argv[3:])
try:
    training.train(config, sys.argv[2], "tokenizer")
except KeyboardInterrupt:
    sys.exit(77)
"""


@pytest.mark.parametrize("way", ["genie-train", "python", "genie-cpp"])
def test_ctrl_c_saves_and_training_goes_on_from_there(folder: Path, tmp_path: Path, way: str) -> None:
    run = tmp_path / "run"
    tiny, data = str(folder / "tiny.yaml"), str(folder / "world.h5")
    arguments = ["--config", tiny, "--data", data, "--out", str(run), "--phase", "tokenizer"]
    # A checkpoint exists only if the stop saved one.
    quiet = ["--set", LONG, "--set", "training.checkpoint_every=1000000"]
    cli = [sys.executable, "-m", "genie_cpp.cli", "train"]
    commands = {
        "genie-train": ([program("genie-train"), *arguments, *quiet], 0),
        "python": (
            [sys.executable, "-c", SCRIPT, tiny, str(run), f"data.path={data}", *quiet[1::2]],
            77,
        ),
        "genie-cpp": ([*cli, *arguments, *quiet], 130),
    }
    command, expected = commands[way]
    stopped = interrupt_when_under_way(command, run)
    assert stopped.returncode == expected, stopped.stderr
    assert "Traceback" not in stopped.stderr
    step = stopped_step(run)
    assert 0 < step < 1000000
    config = ["--set", f"training.tokenizer.steps={step + 4}"]
    if way == "python":
        training.train(settings(folder, config[1]), run, "tokenizer", resume=True, show_progress=False)
    else:
        base = [program("genie-train")] if way == "genie-train" else cli
        resumed = execute(*base, *arguments, *config, "--resume")
        assert resumed.returncode == 0, resumed.stderr
    steps, _ = series(read_metrics(run, "tokenizer"), "loss")
    assert steps[-1] == stopped_step(run) == step + 4
    assert steps == sorted(set(steps))


def test_an_exception_of_the_callback_stops_saves_and_is_raised(folder: Path, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []

    def callback(line: dict[str, Any]) -> None:
        lines.append(line)
        raise LookupError("enough")

    config = settings(folder, LONG, "training.checkpoint_every=1000000")
    with pytest.raises(LookupError, match="enough"):
        training.train(config, tmp_path / "run", "tokenizer", callback)
    assert len(lines) == 1
    assert lines[0]["phase"] == "tokenizer" and lines[0]["step"] == 2 and lines[0]["loss"] > 0
    assert stopped_step(tmp_path / "run") == 2


def test_the_callback_gets_the_lines_of_the_log_and_torch_is_left_as_it_was(
    folder: Path, tmp_path: Path
) -> None:
    lines: list[dict[str, Any]] = []
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    config = settings(folder, "training.num_threads=1")
    training.train(config, tmp_path / "run", "latent_action", lines.append)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    logged = read_metrics(tmp_path / "run", "latent_action")
    assert [line["step"] for line in lines] == [entry["step"] for entry in logged]
    assert series(lines, "loss") == series(logged, "loss")
    assert series(lines, "loss")[0][-1] == STEPS


def test_training_in_bfloat16_stays_beside_that_in_float32(folder: Path, tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        config = settings(folder, f"training.dtype={dtype}", "training.log_every=1")
        assert training.train(config, tmp_path / dtype, show_progress=False)
    for phase in ("tokenizer", "latent_action", "dynamics"):
        exact, rounded = (
            torch.tensor(series(read_metrics(tmp_path / dtype, phase), "loss")[1])
            for dtype in ("float32", "bfloat16")
        )
        assert len(exact) == len(rounded) == STEPS
        difference = ((rounded - exact) / exact).abs().max()
        assert 0 < difference <= 0.05, phase


def test_training_again_is_refused_without_resume(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, "training.tokenizer.steps=2")
    training.train(config, tmp_path, "tokenizer", show_progress=False)
    with pytest.raises(GenieError, match="already holds checkpoints"):
        training.train(config, tmp_path, "tokenizer", show_progress=False)
    training.train(config, tmp_path, "tokenizer", resume=True, show_progress=False)
    with pytest.raises(GenieError, match="latent_action is not trained"):
        genie_cpp.load(tmp_path)
    assert genie_cpp.load(tmp_path, allow_untrained=True).untrained == ["latent_action", "dynamics"]


def test_what_cannot_be_trained_is_a_genie_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(GenieError, match="unknown phase 'tokeniser'"):
        training.train(settings(folder), tmp_path / "run", "tokeniser")
    with pytest.raises(GenieError, match="missing.h5"):
        training.train({"data": {"path": str(tmp_path / "missing.h5")}}, tmp_path / "run")
    with pytest.raises(GenieError, match="no_such.yaml"):
        training.train(tmp_path / "no_such.yaml", tmp_path / "run")
    with pytest.raises(GenieError, match="is no run directory"):
        genie_cpp.load(tmp_path)


def test_a_dry_run_counts_the_parameters(folder: Path) -> None:
    text = training.dry_run(settings(folder))
    assert "tokenizer" in text and "dynamics" in text


def test_a_codebook_that_is_hardly_used_is_named(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for alarm, heard in ((1, True), (0, False)):
        config = settings(
            folder, f"tokenizer.quantizer.usage_alarm={alarm}", "tokenizer.quantizer.num_codes=512"
        )
        training.train(config, tmp_path / str(alarm), phase="tokenizer", show_progress=False)
        assert ("of the codes are in use" in capfd.readouterr().err) == heard
