"""Training figures and pictures in TensorBoard and Weights & Biases; both are optional (extra `track`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from genie_cpp import _C
from genie_cpp.config_values import values
from genie_cpp.errors import GenieError
from genie_cpp.runs import PHASES, read_metrics

__all__ = ["TRACKERS", "Tracker", "log_pictures", "open_trackers"]


class Tracker(Protocol):
    """Where the trainer's metrics and pictures go."""

    def log(self, metrics: dict[str, Any]) -> None:
        """One line of metrics.jsonl, with its "phase" and "step"."""

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """An image, uint8 (H,W,3)."""

    def close(self) -> None:
        """Writes what is left."""


def _scalars(metrics: dict[str, Any]) -> dict[str, float]:
    return {
        f"{metrics['phase']}/{key}": float(value)
        for key, value in metrics.items()
        if key not in ("phase", "step") and isinstance(value, (int, float))
    }


class TensorBoard:
    """Event files in `run_dir`/tensorboard; look at them with `tensorboard --logdir`."""

    def __init__(self, run_dir: Path, config: _C.Config) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise GenieError(
                "tracking with tensorboard needs it installed: pip install tensorboard"
            ) from error
        self._writer = SummaryWriter(str(run_dir / "tensorboard"))
        self._writer.add_text("config", f"```\n{config.to_yaml()}```")

    def log(self, metrics: dict[str, Any]) -> None:
        for name, value in _scalars(metrics).items():
            self._writer.add_scalar(name, value, metrics["step"])

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases, named after `run_dir`. WANDB_MODE=offline keeps it in `run_dir`/wandb;
    WANDB_PROJECT names the project (genie_cpp where absent)."""

    def __init__(self, run_dir: Path, config: _C.Config) -> None:
        try:
            import wandb
        except ImportError as error:
            raise GenieError("tracking with wandb needs it installed: pip install wandb") from error
        self._image = wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "genie_cpp"),
            name=run_dir.name,
            dir=str(run_dir),
            config=values(config),
        )
        # Each phase counts its steps from 1: a step of its own for each.
        for phase in PHASES:
            self._run.define_metric(f"{phase}/step")
            self._run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")

    def log(self, metrics: dict[str, Any]) -> None:
        self._run.log({**_scalars(metrics), f"{metrics['phase']}/step": metrics["step"]})

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        self._run.log({name: self._image(image), f"{name.partition('/')[0]}/step": step})

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, type[TensorBoard] | type[WandB]] = {"tensorboard": TensorBoard, "wandb": WandB}


def open_trackers(names: list[str], run_dir: str | Path, config: _C.Config) -> list[Tracker]:
    """The trackers of these names. Raises GenieError for an unknown name, or what is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise GenieError(f"tracker must be one of {', '.join(TRACKERS)}, got {name!r}")
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    return [TRACKERS[name](Path(run_dir), config) for name in names]


def log_pictures(trackers: Sequence[Tracker], run_dir: str | Path, config: _C.Config, phase: str) -> None:
    """After a phase: reconstructions of a held-out clip, or a rollout of it, above each the original."""
    import torch

    from genie_cpp import models
    from genie_cpp.evaluation.clips import open_source
    from genie_cpp.generation import play
    from genie_cpp.viz import grid, to_frames, upscale

    if not trackers or phase not in ("tokenizer", "dynamics", "cotrain"):
        return
    settings = values(config)["data"]
    path = settings["validation_path"] or settings["path"]
    genie = models.load(run_dir, allow_untrained=True)
    entries = read_metrics(run_dir, phase)
    if not entries or genie.untrained and (phase != "tokenizer" or "tokenizer" in genie.untrained):
        return
    video = open_source(path, config, "auto").clips(1, settings["num_frames"]).video
    with torch.no_grad():
        if phase == "tokenizer":
            name, shown = "reconstruction", genie.tokenizer.decode(genie.tokenizer.encode(video))[0]
            frames = to_frames(shown)
        else:
            actions = genie.latent_action.infer(video)
            name, frames = "rollout", play(genie, video[:, :1], actions)[0]
    pair = grid([upscale(to_frames(video[0]), 2), upscale(frames, 2)])
    for tracker in trackers:
        tracker.picture(f"{phase}/{name}", pair, entries[-1]["step"])
