"""The command `genie-cpp bench`: it runs benchmarks/ of a source checkout, where the measuring code lives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import typer


def benchmarks_folder() -> Path:
    """benchmarks/ beside the package (an editable install) or in the current directory."""
    from genie_cpp.errors import GenieError

    places = [Path(__file__).resolve().parent.parent, Path.cwd()]
    for place in places:
        if (place / "benchmarks" / "bench.py").exists():
            return place / "benchmarks"
    raise GenieError(
        "genie-cpp bench needs the folder benchmarks/ of the source repository, which is not part of the "
        f"installed package; looked in {' and '.join(map(str, places))}. Run it from a checkout, or `make bench` there"
    )


def bench(context: typer.Context) -> None:
    """Measure training steps, operations, generation, loader and start-up beside plain PyTorch; `--help` tells
    more. `bench compare A.json B.json` tells which ratios got worse."""
    command = [sys.executable, str(benchmarks_folder() / "bench.py"), *context.args]
    try:
        status = subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        status = 130
    raise typer.Exit(status)


# All options are those of benchmarks/bench.py, --help included.
OPTIONS = {
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}
