"""`genie-cpp demo`: from nothing to a page that shows a learned game."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

import genie_cpp
from genie_cpp import _C, evaluation
from genie_cpp.config_values import changed, values
from genie_cpp.data.record import record_atari
from genie_cpp.errors import GenieError
from genie_cpp.progress import counting, train_phases


def demo_config() -> Path:
    """configs/demo.yaml of the source tree, or of the installed package."""
    package = Path(__file__).parent
    for folder in (package.parent, package, Path.cwd()):
        if (folder / "configs" / "demo.yaml").is_file():
            return folder / "configs" / "demo.yaml"
    raise GenieError(
        "configs/demo.yaml is not here: run from a checkout of genie_cpp, or name a file by --config"
    )


def run_demo(console: Console, out: Path, game: str, frames: int, config: _C.Config, seed: int) -> None:
    """Records `frames` frames of `game`, trains, evaluates and reports.

    What `out` holds of an earlier demo, a recording or training that was stopped or done, is used again.
    """
    seconds: dict[str, float] = {}
    recording = out / f"{game}.h5"

    if recording.is_file():
        console.print(f"using the recording {recording}")
    else:
        size = max(values(config)["data"][side] for side in ("height", "width"))
        with _timed(seconds, "recording"), counting(console, f"record {game}", frames) as done:
            record_atari(recording, game, frames, size, seed, progress=done)

    config = changed(config, f"data.path={recording}")
    seconds |= train_phases(console, config, str(out), _C.phase_names(config), resume=True)

    with _timed(seconds, "evaluation"), console.status("evaluating") as status:
        genie = genie_cpp.load(out)
        result = evaluation.evaluate(
            genie, recording, progress=lambda part: status.update(f"evaluating: {part}")
        )
        result.write_json(out / "eval.json")
        evaluation.save_picture(result, out / "eval.png")

    drive = (
        f"genie-cpp generate --model {out} --prompt {recording}:123 --actions 0,0,0,0,3,3,3,3 "
        f"--out {out}/driven.gif"
    )
    look = f"genie-cpp inspect {out}"
    with _timed(seconds, "report"), console.status("writing the report"):
        report = evaluation.write_report(genie, result, out, [drive, look])

    console.print(evaluation.table(result))
    timings = Table(box=None, show_header=False, pad_edge=False)
    for part, taken in (seconds | {"total": sum(seconds.values())}).items():
        timings.add_row(part, f"{taken:.1f} s")
    console.print(timings)
    console.print(
        f"\nLook at [bold]{report}[/bold], then drive the world yourself:\n\n  {drive}\n", soft_wrap=True
    )


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    seconds[part] = time.monotonic() - begin
