"""Phase cotrain, the latent action model and the dynamics model together: in the trainer and in the tools."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny import STEPS, TINY
from typer.testing import CliRunner

import genie_cpp
from genie_cpp import _C, GenieError, training
from genie_cpp.cli import app
from genie_cpp.runs import checkpoints, read_metrics, series

COTRAIN = f"\n  cotrain: {{steps: {STEPS}, batch_size: 2, warmup_steps: 2, learning_rate: 1e-3}}\n"


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cotrain")
    _C.write_synthetic_world(str(folder / "world.h5"), 240, 16, 16, 30, 0)
    (folder / "tiny.yaml").write_text(TINY.rstrip() + COTRAIN)
    where = ["--config", folder / "tiny.yaml", "--data", folder / "world.h5", "--out", folder / "run"]
    invoke("train", *where, "--track", "tensorboard")
    return folder


def test_it_takes_the_place_of_two_phases_and_logs_the_losses_of_both(folder: Path) -> None:
    run = folder / "run"
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == [
        "cotrain",
        "tensorboard",
        "tokenizer",
    ]
    entries = read_metrics(run, "cotrain")
    names = ("loss", "latent_action_loss", "dynamics_loss")
    (steps, total), (_, actions), (_, dynamics) = (series(entries, name) for name in names)
    assert steps[-1] == STEPS and all(math.isfinite(loss) for loss in total)
    for whole, a, b in zip(total, actions, dynamics, strict=True):
        assert abs(whole - a - b) <= 1e-4 * abs(whole)
    for name in ("codebook_usage", "validation_delta_psnr", "validation_cross_entropy"):
        assert series(entries, name)[0], name
    assert f"step_{STEPS:08d}" in checkpoints(run, "cotrain")


def test_the_models_are_loaded_and_the_latent_action_model_has_learned(folder: Path) -> None:
    model = genie_cpp.load(folder / "run")
    assert model.untrained == []
    torch.manual_seed(0)
    fresh = {name: value.clone() for name, value in genie_cpp.models.Genie(model.config).state_dict().items()}
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, fresh[name])]
    for part in ("latent_action.encoder.", "latent_action.predictor.", "dynamics.transformer."):
        assert any(name.startswith(part) for name in changed), part
    assert bool(model.latent_action.state_dict()["quantizer.initialized"])


def test_inspect_report_and_trackers_know_it(folder: Path) -> None:
    shown = invoke("inspect", folder / "run")
    assert "cotrain" in shown and "latent_action" not in shown.replace("latent actions", "")
    invoke("report", folder / "run", "--clips", 4, "--rollouts", 2)
    assert "cotrain:" in (folder / "run" / "report.html").read_text()
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / "run" / "tensorboard"))
    events.Reload()
    assert "cotrain/dynamics_loss" in events.Tags()["scalars"]
    assert "cotrain/rollout" in events.Tags()["images"]


def test_inspect_shows_what_a_checkpoint_holds_and_refuses_a_damaged_one(folder: Path) -> None:
    path = folder / "run" / "cotrain" / "checkpoints" / f"step_{STEPS:08d}"
    shown = invoke("inspect", path)
    for text in ("cotrain", "latent_action.quantizer.codebook", "4x4", "F32", "MiB"):
        assert text in shown
    whole = (path / "optimizer.safetensors").read_bytes()
    (path / "optimizer.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        assert CliRunner().invoke(app, ["inspect", str(path)]).exit_code == 1
    finally:
        (path / "optimizer.safetensors").write_bytes(whole)


def test_the_dry_run_names_its_memory(folder: Path) -> None:
    lines = training.dry_run(folder / "tiny.yaml").splitlines()
    assert [line.split()[1] for line in lines if line.startswith("phase ")] == ["tokenizer", "cotrain"]


def test_a_phase_that_the_configuration_does_not_train_is_named_with_the_remedy(folder: Path) -> None:
    with pytest.raises(GenieError, match="cotrain takes the place of dynamics"):
        training.train(folder / "tiny.yaml", folder / "other", "dynamics")
    config = _C.Config.load(str(folder / "tiny.yaml"))
    config.override(["training.cotrain.steps=0"])
    with pytest.raises(GenieError, match=r"set training\.cotrain\.steps"):
        training.train(config, folder / "other", "cotrain")
