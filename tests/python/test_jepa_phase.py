"""Phase jepa of the C++ trainer, from Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from genie_cpp import _C, GenieError, training, vision

CONFIG = {
    "data": {"num_frames": 4, "height": 16, "width": 16, "num_workers": 1, "validation_fraction": 0.25},
    "jepa": {
        "encoder": {"patch_size": 4, "tubelet_size": 2, "depth": 2, "dim": 24, "heads": 2},
        "predictor": {"depth": 1, "dim": 16, "heads": 2},
        "momentum": 0.9,
    },
    "training": {
        "device": "cpu",
        "log_every": 1,
        "validate_every": 6,
        "validation_clips": 4,
        "checkpoint_every": 3,
        "jepa": {
            "steps": 6,
            "batch_size": 4,
            "warmup_steps": 1,
            "learning_rate": 1e-3,
            "weight_decay": 0.04,
            "final_weight_decay": 0.4,
        },
    },
}


def config(path: Path, *overrides: str) -> _C.Config:
    import yaml

    result = _C.Config.parse(yaml.safe_dump(CONFIG))
    result.override([f"data.path={path}", *overrides])
    return result


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "jepa/metrics.jsonl").read_text().splitlines()]


def run(path: Path, out: Path, *overrides: str, resume: bool = False) -> list[dict[str, float]]:
    training.train(config(path, *overrides), out, "jepa", resume=resume, show_progress=False)
    return lines(out)


def losses(rows: list[dict[str, float]]) -> list[float]:
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("loss", ["l1", "smooth_l1"])
def test_the_loss_falls_and_the_targets_spread_is_logged(
    shifting_file: Path, tmp_path: Path, loss: str
) -> None:
    rows = run(shifting_file, tmp_path / "run", "training.jepa.steps=40", f"jepa.loss={loss}",
               "training.jepa.learning_rate=3e-3")  # fmt: skip
    values = losses(rows)
    assert sum(values[-5:]) < sum(values[:5])
    assert all(row["target_std"] > 0 for row in rows if "loss" in row)
    assert "validation_loss" in rows[-1] and "validation_target_std" in rows[-1]


def test_a_resumed_run_repeats_the_one_that_never_stopped(shifting_file: Path, tmp_path: Path) -> None:
    whole = run(shifting_file, tmp_path / "whole", "training.jepa.schedule=constant")
    run(shifting_file, tmp_path / "halves", "training.jepa.schedule=constant")
    folder = tmp_path / "halves/jepa/checkpoints"
    for path in (folder / "step_00000006").iterdir():
        path.unlink()
    (folder / "step_00000006").rmdir()
    (folder / "latest").write_text("step_00000003\n")
    again = run(shifting_file, tmp_path / "halves", "training.jepa.schedule=constant", resume=True)
    assert losses(again) == losses(whole)
    first, second = (_C.load_jepa_weights(str(tmp_path / name)) for name in ("whole", "halves"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_batch_in_parts_has_the_same_loss(shifting_file: Path, tmp_path: Path) -> None:
    whole = run(shifting_file, tmp_path / "whole")
    parts = run(shifting_file, tmp_path / "parts", "training.jepa.accumulation=4")
    for a, b in zip(losses(whole), losses(parts), strict=True):
        assert abs(a - b) <= 1e-4 * a


def test_the_target_encoder_is_the_moving_average_of_the_encoder(shifting_file: Path, tmp_path: Path) -> None:
    weights = {}
    for steps in (1, 2):  # one step writes the first state, the second moves the average once more
        run(shifting_file, tmp_path / str(steps), f"training.jepa.steps={steps}", "jepa.final_momentum=0.9",
            "training.jepa.schedule=constant", "training.jepa.final_weight_decay=-1")  # fmt: skip
        weights[steps] = _C.load_jepa_weights(str(tmp_path / str(steps)))
    name = "blocks.0.attn.qkv.weight"
    expected = 0.9 * weights[1][f"target_encoder.{name}"] + 0.1 * weights[2][f"encoder.{name}"]
    difference = (weights[2][f"target_encoder.{name}"] - expected).abs().max().item()
    assert difference <= 1e-7
    assert not torch.equal(weights[2][f"target_encoder.{name}"], weights[2][f"encoder.{name}"])


def test_annealing_starts_from_given_weights(shifting_file: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    run(shifting_file, tmp_path / "first")
    weights = {
        name: value
        for name, value in _C.load_jepa_weights(str(tmp_path / "first")).items()
        if name.startswith("encoder.")
    }
    save_file(weights, str(tmp_path / "weights.safetensors"))
    given = f"jepa.initial_weights={tmp_path}/weights.safetensors"
    with pytest.raises(GenieError, match="missing: predictor"):
        run(shifting_file, tmp_path / "strict", given)
    run(shifting_file, tmp_path / "loose", given, "jepa.initial_strict=false", "training.jepa.steps=1",
        "training.jepa.learning_rate=0", "jepa.encoder.use_area_attention=true")  # fmt: skip
    loaded = _C.load_jepa_weights(str(tmp_path / "loose"))
    for name, value in weights.items():
        assert torch.equal(loaded[name], value), name
        assert torch.allclose(loaded[f"target_{name}"], value, atol=1e-6), name


def test_the_trained_encoder_loads_as_a_module(shifting_file: Path, tmp_path: Path) -> None:
    run(shifting_file, tmp_path / "run", "jepa.encoder.use_area_attention=true")
    weights = _C.load_jepa_weights(str(tmp_path / "run"))
    model = vision.load_jepa_run(tmp_path / "run")
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[f"target_encoder.{name}"]), name
    assert not model.training and model(torch.zeros(1, 3, 4, 16, 16)).shape == (1, 32, 24)
    with pytest.raises(GenieError, match="phase jepa is not trained"):
        vision.load_jepa_run(tmp_path / "none")


def test_collapse_is_said(shifting_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(shifting_file, tmp_path / "run", "jepa.collapse_alarm=1", "training.jepa.steps=1")
    assert "below jepa.collapse_alarm = 1" in capfd.readouterr().err


@pytest.mark.parametrize(
    "override,message",
    [
        ("jepa.encoder.tubelet_size=3", "don't divide into tubelets of jepa.encoder.tubelet_size = 3"),
        ("jepa.encoder.patch_size=5", "don't divide into patches of jepa.encoder.patch_size = 5"),
        ("jepa.encoder.heads=5", "jepa.encoder.dim = 24 is not divisible by jepa.encoder.heads = 5"),
        ("jepa.masks.min_aspect=2", "jepa.masks.min_aspect = 2 is above"),
    ],
)
def test_what_does_not_fit_is_refused(
    shifting_file: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(GenieError, match=message):
        run(shifting_file, tmp_path / "run", override)
