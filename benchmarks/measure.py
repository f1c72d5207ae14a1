"""Timing for all benchmarks: candidates take turns in one process, because machines are shared and noisy."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


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


def row(
    name: str, dtype: str, ours_s: float, plain_s: float, products_s: float | None, **further: Any
) -> Row:
    """A row of the benchmark's table. Keys with a "/" are ratios, all such that less is better; `products_s`
    is None where the mathematics has no matrix product."""
    result = {"row": name, "dtype": dtype, "ours_s": ours_s, "plain_s": plain_s, "products_s": products_s}
    result["ours/plain"] = ours_s / plain_s
    if products_s is not None:
        result["ours/products"] = ours_s / products_s
    return {**result, **further}


def yardstick(dtype: torch.dtype) -> torch.dtype:
    """The type in which plain PyTorch and the bare products are timed beside ours in `dtype`: the same, but
    float32 for bfloat16 on a processor without instructions for it. There they would take minutes, and plain
    PyTorch is best used in float32."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")  # others are not known to be slow
    slow = dtype == torch.bfloat16 and x86 and not torch.cpu._is_avx512_bf16_supported()
    return torch.float32 if slow else dtype


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def use_threads(count: int) -> None:
    """Starts the program anew where torch has another number of threads. torch.set_num_threads would do more:
    it switches MKL's dynamic mode off, after which scaled_dot_product_attention of short sequences takes
    twice as long."""
    if count != torch.get_num_threads():
        if os.environ.get("OMP_NUM_THREADS") == str(count):
            sys.exit(f"torch takes {torch.get_num_threads()} threads although OMP_NUM_THREADS is {count}")
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(count)
        sys.stdout.flush()
        os.execv(sys.executable, sys.orig_argv)


def clear_high_water() -> None:
    """This process's high-water mark begins anew."""
    Path("/proc/self/clear_refs").write_text("5")


def high_water_gib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=thread_count, default=torch.get_num_threads())


def thread_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= os.cpu_count():
        raise argparse.ArgumentTypeError(f"expected 1 to {os.cpu_count()}, got {text!r}")
    return int(text)


def arguments(description: str, rounds: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="write the rows and the environment here")
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="calls of each candidate (default %(default)s)"
    )
    add_threads(parser)
    return parser


def report(rows: list[Row], path: Path | None) -> None:
    """Prints the rows as a table and writes them, with the environment, as JSON."""
    print_table(rows)
    if path:
        write(rows, path)


def print_table(rows: list[Row]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    for line in [columns, *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)), flush=True)


def write(rows: list[Row], path: Path, **further: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"environment": {**environment(), **further}, "rows": rows}, indent=2) + "\n"
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
