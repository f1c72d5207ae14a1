"""What `genie-cpp inspect` shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from genie_cpp import _C
from genie_cpp.config_values import values
from genie_cpp.errors import GenieError
from genie_cpp.runs import PHASES, checkpoints, read_metrics, series

CONFIG_SUFFIXES = (".yaml", ".yml")
BAR = 30


def describe(path: Path) -> RenderableType:
    """A video file, a run directory, a checkpoint or a configuration, told apart by what the path is."""
    if path.is_dir():
        return describe_checkpoint(path) if (path / "manifest.json").is_file() else describe_run(path)
    if path.suffix.lower() in CONFIG_SUFFIXES:
        return Syntax(_C.Config.load(str(path)).to_yaml(), "yaml", background_color="default")
    return describe_video(path)


def _facts(rows: list[tuple[str, str]]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in rows:
        table.add_row(f"{name}:", Text(value))
    return table


def describe_video(path: Path) -> RenderableType:
    file = _C.VideoFile(str(path))
    lengths = np.diff([0, *file.episode_ends])
    rows = [
        ("frames", str(file.num_frames)),
        ("size", f"{file.width}x{file.height} pixels"),
        ("rate", f"{file.fps:g} frames a second" if file.fps else "not stated"),
        ("environment", file.env or "not stated"),
        ("episodes", f"{len(lengths)}, {lengths.min()} to {lengths.max()} frames long"),
        ("actions", f"{file.num_actions} different ones" if file.has_actions else "not recorded"),
    ]
    if not file.has_actions:
        return _facts(rows)
    counts = np.bincount(np.asarray(file.actions), minlength=file.num_actions)
    histogram = Table(box=None, pad_edge=False)
    histogram.add_column("action", justify="right")
    histogram.add_column("frames", justify="right")
    histogram.add_column("")
    for action, count in enumerate(counts):
        histogram.add_row(str(action), str(count), "█" * round(BAR * count / counts.max()))
    return Group(_facts(rows), histogram)


def describe_checkpoint(path: Path) -> RenderableType:
    found = _C.describe_checkpoint(str(path))
    facts = [
        ("phase", found["phase"]),
        ("step", str(found["step"])),
        ("seed", str(found["seed"])),
        ("configuration", f"{found['config_hash']} (in {path / 'config.yaml'})"),
        ("files", "whole: sizes and checksums are those of the manifest"),
    ]
    for part in ("model", "optimizer"):
        size = sum(entry[3] for entry in found[part])
        facts.append((part, f"{len(found[part])} tensors, {size / 2**20:.1f} MiB"))
    table = Table(box=None, pad_edge=False)
    for title in ("weights", "type", "shape"):
        table.add_column(title)
    for name, dtype, shape, _ in found["model"]:
        table.add_row(name, dtype, "x".join(map(str, shape)) or "scalar")
    return Group(_facts(facts), table)


def describe_run(path: Path) -> RenderableType:
    if not (path / "config.yaml").is_file():
        raise GenieError(f"{path}: is no run directory, it holds no config.yaml")
    config = _C.Config.load(str(path / "config.yaml"))
    settings, phases = values(config), _C.phase_names(config)
    data = settings["data"]
    facts = [
        ("data", data["path"] or "not stated"),
        ("clips", f"{data['num_frames']} frames of {data['width']}x{data['height']} pixels"),
        ("tokens", f"{settings['tokenizer']['quantizer']['num_codes']} codes"),
        ("actions", f"{settings['latent_action']['quantizer']['num_codes']} latent actions"),
    ]
    table = Table()
    for title in ("phase", "step", "of", "loss", "validation loss", "steps a second", "newest checkpoint"):
        table.add_column(title)
    apart = [phase for phase in PHASES if phase not in phases and (path / phase).is_dir()]
    for phase in phases + apart:
        entries = read_metrics(path, phase)
        steps, losses = series(entries, "loss")
        kept = checkpoints(path, phase)
        table.add_row(
            phase,
            str(steps[-1]) if steps else "not begun",
            str(settings["training"][phase]["steps"]),
            f"{losses[-1]:.4g}" if losses else "",
            *(
                f"{found[-1]:.4g}" if (found := series(entries, key)[1]) else ""
                for key in ("validation_loss", "steps_per_second")
            ),
            kept[-1] if kept else "none",
        )
    return Group(_facts(facts), table)
