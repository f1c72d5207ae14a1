"""Timing for all benchmarks: candidates take turns in one process, because machines are shared and noisy."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch


def in_turns(
    candidates: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> dict[str, float]:
    """Seconds a call of each candidate: the least of `rounds`, in which they are called one after another."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warmup + rounds):
        for name, call in candidates.items():
            begin = time.perf_counter()
            call()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - begin)
    return {name: min(values) for name, values in seconds.items()}


def repeated(call: Callable[[], object], least_seconds: float = 0.05) -> Callable[[], float]:
    """A call that runs `call` until `least_seconds` have passed and returns the median of the durations."""

    def run() -> float:
        durations: list[float] = []
        while sum(durations) < least_seconds:
            begin = time.perf_counter()
            call()
            durations.append(time.perf_counter() - begin)
        return statistics.median(durations)

    return run


def environment() -> dict[str, Any]:
    return {
        "date": date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def arguments(description: str, rounds: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="write the rows and the environment here")
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="calls of each candidate (default %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser


def report(rows: list[dict[str, Any]], path: Path | None) -> None:
    """Prints the rows as a table and writes them, with the environment, as JSON."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    for line in [columns, *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    if path:
        path.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=2) + "\n")


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
