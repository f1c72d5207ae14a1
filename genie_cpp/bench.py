"""The command `genie-cpp bench`: it runs benchmarks/ of a source checkout, where the measuring code lives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import typer


def script(name: str) -> Path:
    """Of benchmarks/ beside the package (an editable install) or in the current directory."""
    places = [Path(__file__).resolve().parent.parent, Path.cwd()]
    for place in places:
        path = place / "benchmarks" / name
        if path.exists():
            return path
    from genie_cpp.errors import GenieError

    raise GenieError(
        "genie-cpp bench needs the folder benchmarks/ of the source repository, which is not part of the "
        f"installed package; looked in {' and '.join(map(str, places))}. "
        "Run it in a checkout, or `make bench` there"
    )


def bench(context: typer.Context) -> None:
    """Measure steps, operations, generation, loader and start-up beside plain PyTorch (`--help` tells more).

    `bench compare A.json B.json` tells which ratios got worse."""
    comparing = context.args[:1] == ["compare"]
    path = script("compare.py") if comparing else script("bench.py")
    command = [sys.executable, str(path), *context.args[comparing:]]
    try:
        status = subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        status = 130
    raise typer.Exit(status)


# All options are those of the scripts, --help included.
OPTIONS = {
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}
