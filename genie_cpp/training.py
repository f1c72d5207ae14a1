"""Training from Python: the same trainer as the program genie-train, with the same files and figures."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from genie_cpp import _C
from genie_cpp.config_values import ConfigLike, as_config

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["dry_run", "keep_freed_memory", "train"]


def train(
    config: ConfigLike,
    out: str | os.PathLike[str],
    phase: str = "all",
    callback: Callable[[dict[str, Any]], object] | None = None,
    resume: bool = False,
    show_progress: bool | None = None,
    process_group: ProcessGroup | None = None,
) -> bool:
    """Trains the tokenizer, the latent action model and the dynamics model into the run directory `out`.

    `config` is a Config, the path of a YAML file, or nested dictionaries of the keys that differ from their
    defaults; data.path names the video file. `phase` is "tokenizer", "latent_action", "dynamics", "cotrain",
    or "all" of these that the configuration trains, one after the other; a phase alone loads those it builds
    on from `out`. "jepa" stands apart: it trains the video encoder of section `jepa`
    (docs/area_attention.md). `resume` continues from the
    newest checkpoints there.

    `callback` is called with each line of metrics.jsonl as a dictionary: "phase", "step", and numbers like
    "loss", "learning_rate" and, after a validation, "validation_...". `show_progress` draws progress on
    stderr; by default where there is no callback.

    With a `process_group` of torch.distributed every process of it calls this with the same arguments, and
    they train one model together, each on its own batches; the first one alone reads and writes `out` and
    calls its callback. Returns False where another of them was asked to stop, else True.

    Ctrl-C stops after the step under way, saves a checkpoint and raises KeyboardInterrupt; an exception of
    the callback does the same and is raised. Torch's random state and number of threads are left as they
    were.

    Raises GenieError for a configuration, file or run directory that does not fit, with the remedy.
    """
    settings = as_config(config)
    if show_progress is None:
        show_progress = callback is None
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng():
            group = "" if process_group is None else process_group.group_name
            return _C.train(settings, os.fspath(out), phase, resume, callback, show_progress, group)
    except KeyboardInterrupt:
        if show_progress:
            print(f"stopped; continue with resume=True on {os.fspath(out)}", file=sys.stderr)
        raise
    finally:
        # Only where it changed: torch then switches MKL's dynamic mode off, and small products suffer.
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def dry_run(config: ConfigLike) -> str:
    """What training `config` will take, as text: parameters of each model and memory of each phase."""
    return _C.dry_run(as_config(config))


def keep_freed_memory(keep: bool = True) -> None:
    """Has the C library keep freed memory for later instead of returning large blocks to the system.

    A training step asks for the same blocks again and again; on CPU this saves a tenth of it. `train` does so
    by itself while it runs. Call this before training loops of your own; the process holds its peak memory
    until `keep_freed_memory(False)`.
    """
    _C.keep_freed_memory(keep)
