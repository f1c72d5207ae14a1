"""The whole table, every row side by side in one run: ours, the same mathematics in plain eager PyTorch, and
the bare matrix products of that shape, each the least of several calls that take turns.

    genie-cpp bench                                   all rows; make bench does this
    genie-cpp bench --rows ops startup --quick
    genie-cpp bench compare before.json after.json    which ratios got worse (benchmarks/compare.py)

Rows: steps (a training step of each model, with peak memory), generation (a frame), ops (each operation
forward and backward), loader (frames a second, memory), startup (importing). docs/performance.md says what
the columns mean. Ratios are such that less is better.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import generation
import measure
import op_steps
import plain
import startup
import training_step

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Plan:
    """What is measured; the sizes of docs/performance.md unless said otherwise."""

    rounds: int  # calls of what is slow
    sizes: plain.Sizes = field(default_factory=plain.Sizes)
    models: Sequence[str] = training_step.MODELS
    maskgit_steps: int = generation.STEPS
    shapes: op_steps.Shapes = field(default_factory=op_steps.Shapes)
    loader_frames: int = 16384
    loader_batches: int = 100


def loader_rows(plan: Plan) -> Iterator[measure.Row]:
    import loading  # it needs h5py, which the other rows don't

    return loading.rows(plan.sizes, plan.loader_frames, plan.loader_batches, 2 * plan.rounds)


GROUPS: dict[str, Callable[[Plan, Sequence[str]], Iterator[measure.Row]]] = {
    "startup": lambda plan, dtypes: startup.rows(2 * plan.rounds),
    "ops": lambda plan, dtypes: op_steps.rows(plan.shapes, dtypes, 3 * plan.rounds),
    "generation": lambda plan, dtypes: generation.rows(plan.sizes, plan.maskgit_steps, 2 * plan.rounds),
    "loader": lambda plan, dtypes: loader_rows(plan),
    "steps": lambda plan, dtypes: training_step.rows(plan.sizes, plan.models, dtypes, plan.rounds),
}


def run(groups: Sequence[str], plan: Plan, path: Path) -> list[measure.Row]:
    """Prints each group's table when it is measured, and writes all of them so far."""
    rows: list[measure.Row] = []
    for group in groups:
        print(f"measuring {group} ...", file=sys.stderr, flush=True)
        new = list(GROUPS[group](plan, DTYPES))
        rows += new
        print()
        measure.print_table(new)
        measure.write(rows, path, rounds=plan.rounds)
    print(f"\nfigures: {path}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="genie-cpp bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=list(GROUPS), default=list(GROUPS), help="default: all")
    parser.add_argument("--quick", action="store_true", help="2 rounds, for a first look")
    parser.add_argument(
        "--rounds", type=int, default=5, help="calls of what is slow; what is quick gets 2 or 3 times as many"
    )
    measure.add_threads(parser)
    parser.add_argument(
        "--json", type=Path, default=Path("runs/bench.json"), help="file for the figures (%(default)s)"
    )
    options = parser.parse_args()
    groups = [group for group in GROUPS if group in options.rows]
    if "loader" in groups and importlib.util.find_spec("h5py") is None:
        parser.error("the rows `loader` need h5py: pip install h5py, or name the others with --rows")
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    measure.use_threads(options.threads)
    run(groups, Plan(rounds=2 if options.quick else options.rounds), options.json)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
