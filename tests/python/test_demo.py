from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from worlds import ShiftingWorld

from genie_cpp import _C, training
from genie_cpp.config_values import values
from genie_cpp.demo import demo_config, run_demo


def test_the_demo_goes_from_nothing_to_a_report_and_can_be_repeated(
    shifting_world: ShiftingWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def train(
        config: _C.Config, out: str, phase: str, callback: Callable[[dict[str, float]], None], resume: bool
    ) -> None:
        assert resume
        assert values(config)["data"]["path"] == str(tmp_path / "boxing.h5")
        callback({"step": 1, "loss": 0.5})
        trained.append(phase)

    monkeypatch.setattr(training, "train", train)
    console = Console(record=True, width=200, file=open(os.devnull, "w"))
    for _ in range(2):
        run_demo(console, tmp_path, "boxing", 600, shifting_world.config, seed=0)
    output = console.export_text()
    assert trained == 2 * _C.phase_names(_C.Config())
    assert "using the recording" in output and "recording" in output and "total" in output
    assert str(tmp_path / "report.html") in output and "genie-cpp generate" in output
    assert (tmp_path / "report.html").is_file() and (tmp_path / "eval.png").is_file()
    assert json.loads((tmp_path / "eval.json").read_text())["about"]["split"] == "all"


def test_the_demos_configuration_is_found_and_valid() -> None:
    assert _C.Config.load(str(demo_config()))
