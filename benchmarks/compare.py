"""Compares two stored runs of the benchmark by their ratios, in which machines cancel out; seconds are never
compared.

    genie-cpp bench compare before.json after.json --tolerance 0.1

Every ratio is such that less is better. Exit status: 0 where none got worse by more than the tolerance, 1
where one did, 2 where the runs can't be compared.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class NotComparable(ValueError):
    """The runs hold different rows or ratios; the message names them."""


@dataclass(frozen=True)
class Change:
    """A ratio of one row in two runs."""

    row: str
    ratio: str
    before: float
    after: float

    def worse(self, tolerance: float) -> bool:
        return not self.after <= self.before * (1 + tolerance)  # so that NaN is worse


def ratios(run: dict[str, Any]) -> dict[tuple[str, str], float]:
    """By row (with its dtype, and that of what stood beside it) and name: the keys with a "/"."""
    found = {}
    for row in run["rows"]:
        name = f"{row['row']} {row['dtype']}".strip()
        if row.get("beside", row["dtype"]) != row["dtype"]:
            name += f" beside {row['beside']}"
        for key, value in row.items():
            if "/" in key:
                found[name, key] = value
    return found


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """All ratios, in the order of `before`. Raises NotComparable unless both runs hold the same."""
    old, new = ratios(before), ratios(after)
    missing = [
        f"{run} has no {' '.join(name)!r}"
        for run, has, wanted in (("the second run", new, old), ("the first run", old, new))
        for name in wanted
        if name not in has
    ]
    if missing:
        raise NotComparable(f"the runs differ in their rows: {'; '.join(missing)}")
    return [Change(*name, old[name], new[name]) for name in old]


def load(path: Path) -> dict[str, Any]:
    try:
        run = json.loads(path.read_text())
        ratios(run)
        return run
    except OSError as error:
        raise NotComparable(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NotComparable(f"{path} is no result of genie-cpp bench --json") from None


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="genie-cpp bench compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.1, help="default: %(default)s, which is 10 %%")
    options = parser.parse_args(arguments)
    if not options.tolerance >= 0:
        parser.error(f"--tolerance must be at least 0, got {options.tolerance}")
    try:
        before, after = load(options.before), load(options.after)
        changes = compare(before, after)
    except NotComparable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for key in ("threads", "capability", "torch"):
        old, new = (run.get("environment", {}).get(key) for run in (before, after))
        if old != new:
            print(f"note: {key} differs: {old} and {new}")
    worse = [change for change in changes if change.worse(options.tolerance)]
    for change in changes:
        mark = "WORSE " if change in worse else ""
        factor = change.after / change.before if change.before else math.nan
        print(
            f"{mark}{change.row}, {change.ratio}: {change.before:.3g} -> {change.after:.3g} ({factor:.2f} x)"
        )
    print(f"{len(worse)} of {len(changes)} ratios got worse by more than {options.tolerance:.0%}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
