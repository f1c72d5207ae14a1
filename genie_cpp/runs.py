"""What a run directory holds: config.yaml and, for each phase, metrics.jsonl and checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# All that a run directory may hold; _C.phase_names gives those of a configuration.
PHASES = ["tokenizer", "latent_action", "dynamics", "cotrain", "jepa"]


def read_metrics(run_dir: str | Path, phase: str) -> list[dict[str, Any]]:
    """The lines of a phase's metrics.jsonl (none where it has not begun) up to one that is being written."""
    path = Path(run_dir) / phase / "metrics.jsonl"
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text().splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:  # being written
            break
    return entries


def series(entries: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of the entries that have `key`."""
    having = [entry for entry in entries if isinstance(entry.get(key), (int, float))]
    return [entry["step"] for entry in having], [entry[key] for entry in having]


def checkpoints(run_dir: str | Path, phase: str) -> list[str]:
    """Names of a phase's checkpoints, in order."""
    folder = Path(run_dir) / phase / "checkpoints"
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
