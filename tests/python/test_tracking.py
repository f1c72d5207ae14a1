"""Training figures in TensorBoard and Weights & Biases, and the page about a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import STEPS, TINY, genie

from genie_cpp import _C
from genie_cpp.runs import read_metrics


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracking")
    _C.write_synthetic_world(str(folder / "world.h5"), 240, 16, 16, 30, 0)
    (folder / "tiny.yaml").write_text(TINY)
    return folder


def train(folder: Path, name: str, *arguments: str) -> Path:
    command = ["train", "-c", folder / "tiny.yaml", "--data", folder / "world.h5", "--out", folder / name]
    result = genie(*command, *arguments)
    assert result.returncode == 0, result.stderr
    return folder / name


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    return train(folder, "finished", "--track", "tensorboard")


def events(run: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, int]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    scalars = {name: [(e.step, e.value) for e in found.Scalars(name)] for name in found.Tags()["scalars"]}
    return scalars, {name: len(found.Images(name)) for name in found.Tags()["images"]}


def test_a_page_about_an_unfinished_run_has_curves_and_configuration(folder: Path) -> None:
    run = train(folder, "unfinished", "--phase", "tokenizer")
    result = genie("report", run)
    assert result.returncode == 0, result.stderr
    assert "not trained yet: latent_action, dynamics" in " ".join(result.stdout.split())
    page = (run / "report.html").read_text()
    assert "loss curves" in page and "num_codes: 16" in page and "Not all three models" in page


def test_tensorboard_has_every_number_of_the_log_and_pictures(finished: Path) -> None:
    scalars, images = events(finished)
    for phase in _C.phase_names(_C.Config()):
        for entry in read_metrics(finished, phase):
            for key, value in entry.items():
                if key != "step" and isinstance(value, (int, float)):
                    logged = dict(scalars[f"{phase}/{key}"])[entry["step"]]
                    assert abs(logged - value) <= 1e-5 * max(1, abs(value))
    assert images["dynamics/rollout"] == 1 and images["tokenizer/reconstruction"] == 1
    assert scalars["tokenizer/loss"][-1][0] == STEPS


def test_a_page_about_a_finished_run_has_the_figures(finished: Path) -> None:
    result = genie("report", finished, "--clips", 4, "--rollouts", 2)
    assert result.returncode == 0, result.stderr
    page = (finished / "report.html").read_text()
    assert "The figures" in page and "num_codes: 16" in page and "action 3" in page


def test_wandb_keeps_a_run_offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = train(folder, "wandb", "--track", "wandb", "--phase", "tokenizer")
    files = list((run / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 1 and b"tokenizer/loss" in files[0].read_bytes()


def test_an_unknown_tracker_is_named(folder: Path) -> None:
    command = ["train", "-c", folder / "tiny.yaml", "--data", folder / "world.h5", "--out", folder / "other"]
    result = genie(*command, "--track", "tensorbord")
    assert result.returncode == 1 and "tensorboard, wandb" in result.stderr
    assert not (folder / "other").exists()
