"""Runs the phases of an ablation. Each leaves a marker, so that a run that stopped goes on where it was."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from genie_cpp.ablation import encoders, layers, splits, summary, sweep
from genie_cpp.ablation.checks import run_checks
from genie_cpp.ablation.settings import Ablation, Resolution
from genie_cpp.errors import GenieError
from genie_cpp.probing.compare import ProbeTable, probe_encoders
from genie_cpp.settings import find_device, find_dtype

PHASES = ["setup", "unit_checks", "sweep", "fine_tune", "probes", "summary"]
EVALUATION = ["probes", "summary"]
MOST_ATTEMPTS = 2
Say = Callable[[str], None]


class Run:
    """An ablation in a folder."""

    def __init__(self, settings: Ablation, out: Path, say: Say) -> None:
        self.settings, self.out, self.say = settings, out, say
        self.device = find_device(settings.device)
        self.dtype = find_dtype(settings.dtype, self.device)

    def marker(self, phase: str) -> Path:
        return self.out / "markers" / f"{phase}.done"

    def setup(self) -> None:
        encoders.make_data(self.settings, self.out, self.say)

    def unit_checks(self) -> None:
        outcome = run_checks(self.device)
        (self.out / "unit_checks.json").write_text(json.dumps(outcome, indent=1) + "\n")
        self.say(f"  {len(outcome)} passed on {self.device}")

    def sweep(self) -> None:
        """One resolution after the other; each is written when it is done."""
        path, layer_path = self.out / "sweep_results.csv", self.out / "layers.csv"
        data = encoders.training_file(self.settings, self.out)
        if not data.is_file():
            raise GenieError(f"{data}: the sweep's video file is not there; run without --skip-setup")
        rows, layer_rows = read_rows(path), read_rows(layer_path)
        for resolution in self.settings.resolutions:
            if not any(row["resolution"] == resolution.name for row in rows):
                rows += self._sweep_rows(resolution, data)
                write_rows(path, sweep.COLUMNS, rows)
            if not any(row["resolution"] == resolution.name for row in layer_rows):
                layer_rows.append(layers.time_layers(self.settings, resolution, self.device, self.dtype))
                write_rows(layer_path, layers.COLUMNS, layer_rows)
        summary.write_sweep_summary(rows, self.out / "sweep_summary.csv")

    def _sweep_rows(self, resolution: Resolution, data: Path) -> list[dict[str, Any]]:
        """A resolution's rows. The system ends a process that takes all memory, without a word: where that
        may have happened MOST_ATTEMPTS times, the rows say so."""
        begun = self.out / "markers" / f"sweep_{resolution.name}.begun"
        attempts = int(begun.read_text()) if begun.is_file() else 0
        if attempts >= MOST_ATTEMPTS:
            return [dead_row(self, resolution, config) for config in sweep.CONFIGS]
        begun.parent.mkdir(parents=True, exist_ok=True)
        begun.write_text(str(attempts + 1))
        try:
            return sweep.sweep_resolution(self.settings, resolution, data, self.device, self.dtype, self.say)
        finally:
            begun.unlink()  # not reached where the process is ended

    def fine_tune(self) -> None:
        encoders.train_encoders(self.settings, self.out, self.say)

    def probes(self) -> None:
        table, makers = ProbeTable(), {}
        for name, source in encoders.sources(self.settings, self.out).items():
            makers[name] = lambda source=source: source.load().to(self.dtype)
        for task, clips in encoders.task_splits(self.settings, self.out).items():
            probe_encoders(
                makers, task, clips, self.settings.probe, self.settings.seeds, self.device,
                self.out / "features", table, lambda part: self.say(f"  {part}"),
            )  # fmt: skip
        table.write(self.out / "probes.csv")
        (self.out / "probes.md").write_text(table.markdown() + "\n")
        rows = splits.sweep_splits(self.settings, self.out, self.device, self.dtype, self.say)
        write_rows(self.out / "split_sweep.csv", splits.COLUMNS, rows)

    def summary(self) -> None:
        summary.write_summary(self.out)


def dead_row(run: Run, resolution: Resolution, config: str) -> dict[str, Any]:
    """The row of a resolution in which the process ended again and again."""
    known = {
        **dataclasses.asdict(resolution), "resolution": resolution.name, "config": config,
        "model": run.settings.model, "num_steps": run.settings.num_steps, "device": run.device.type,
        "dtype": str(run.dtype).removeprefix("torch."), "status": "ended by the system, out of memory?",
    }  # fmt: skip
    return {column: known.get(column, "") for column in sweep.COLUMNS}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Of a CSV file; none where it is missing."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    """As CSV, in one move."""
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    unfinished.rename(path)


def _check_folder(settings: Ablation, out: Path) -> None:
    """Keeps the settings; refuses a folder of other ones."""
    path, text = out / "settings.yaml", yaml.safe_dump(_plain(dataclasses.asdict(settings)))
    if path.is_file() and path.read_text() != text:
        raise GenieError(f"{path}: holds an ablation of other settings; give another --out, or --reset")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def run_ablation(
    settings: Ablation,
    out: str | Path,
    say: Say = print,
    reset: bool = False,
    skip_setup: bool = False,
    eval_only: bool = False,
) -> None:
    """Runs the phases that have no marker in `out`, in order.

    `reset` removes what an earlier run left; `skip_setup` leaves the first phase out; `eval_only` runs probes
    and summary, also where they are marked. Raises GenieError for a folder of other settings, and whatever a
    phase raises: its marker is then missing, and the next call begins with it.
    """
    out = Path(out)
    if reset and out.exists():
        if not (out / "settings.yaml").is_file():
            raise GenieError(f"{out}: is no ablation, it holds no settings.yaml; remove it yourself")
        shutil.rmtree(out)
    _check_folder(settings, out)
    run = Run(settings, out, say)
    say(f"{out}: {settings.model} on {run.device}, {str(run.dtype).removeprefix('torch.')}")
    for phase in EVALUATION if eval_only else PHASES:
        if phase == "setup" and skip_setup:
            say("setup: skipped")
            continue
        if run.marker(phase).is_file() and not eval_only:
            say(f"{phase}: done before")
            continue
        say(f"{phase}:")
        begin = time.monotonic()
        getattr(run, phase)()
        seconds = time.monotonic() - begin
        run.marker(phase).parent.mkdir(parents=True, exist_ok=True)
        run.marker(phase).write_text(f"{seconds:.1f} s\n")
        say(f"{phase}: done in {seconds:.1f} s")
