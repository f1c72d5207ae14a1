"""Progress bars of recording, importing and training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from genie_cpp.tracking import Tracker


def _progress(console: Console, *columns: TextColumn) -> Progress:
    return Progress(
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


@contextmanager
def counting(console: Console, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar whose position is set by calling the value this yields."""
    with _progress(console) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def training(console: Console, phase: str, steps: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar for one phase of training, fed with the trainer's metrics."""
    with _progress(console, TextColumn("loss {task.fields[loss]}")) as progress:
        task = progress.add_task(phase, total=steps, loss="-")

        def show(metrics: dict[str, Any]) -> None:
            fields: dict[str, Any] = {"loss": f"{metrics['loss']:.4g}"} if "loss" in metrics else {}
            progress.update(task, completed=metrics.get("step"), **fields)

        yield show


def train_phases(
    console: Console,
    config: Any,
    out: str,
    phases: list[str],
    resume: bool = False,
    trackers: Sequence[Tracker] = (),
) -> dict[str, float]:
    """Trains one phase after the other, each with its bar; returns the seconds each took. Trackers get each
    line of metrics, and pictures when a phase is done."""
    import time

    from genie_cpp import training as trainer
    from genie_cpp.config_values import values
    from genie_cpp.tracking import log_pictures

    seconds = {}
    for phase in phases:
        begin = time.monotonic()
        steps = values(config)["training"][phase]["steps"]
        with training(console, phase, steps) as show:

            def report(metrics: dict[str, Any], show: Callable[[dict[str, Any]], None] = show) -> None:
                show(metrics)
                for tracker in trackers:
                    tracker.log(metrics)

            trainer.train(config, out, phase=phase, callback=report, resume=resume)
            show({"step": steps})  # also where a resumed phase had nothing left to do
        log_pictures(trackers, out, config, phase)
        seconds[phase] = time.monotonic() - begin
    return seconds
