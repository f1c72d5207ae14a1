"""Which clips an evaluation looks at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from genie_cpp import _C
from genie_cpp.config_values import changed, values
from genie_cpp.errors import GenieError
from genie_cpp.viz import to_model

FINGERPRINT_BYTES = 1 << 20


@dataclass(frozen=True)
class Clips:
    """Clips of one length: video float (B,T,3,H,W) in [0,1], recorded actions int64 (B,T-1) or None."""

    video: torch.Tensor
    actions: torch.Tensor | None


@dataclass(frozen=True)
class Source:
    """A video file, the split of it that is looked at, and why that one."""

    file: _C.VideoFile
    config: _C.Config
    split: str
    reason: str

    def clips(self, count: int, num_frames: int) -> Clips:
        """Up to `count` clips of `num_frames` frames, spread evenly over the split, without augmentation."""
        config = changed(
            self.config, f"data.num_frames={num_frames}", "data.random_crop=0", "data.horizontal_flip=false"
        )
        dataset = _C.ClipDataset(self.file, config, self.split)
        samples = [dataset.get(index) for index in dataset.spread(count)]
        if not samples:
            raise GenieError(
                f"the {self.split} split holds no clip of {num_frames} frames: record longer episodes"
            )
        video = to_model(torch.stack([torch.as_tensor(video) for video, _ in samples]))
        if not self.file.has_actions:
            return Clips(video, None)
        return Clips(video, torch.stack([torch.as_tensor(actions) for _, actions in samples]))


def same_file(a: str | Path, b: str | Path) -> bool:
    """Whether two paths are one file, or two of one size that begin alike."""
    a, b = Path(a), Path(b)
    if not (a.is_file() and b.is_file()):
        return False
    return a.samefile(b) or _fingerprint(a) == _fingerprint(b)


def _fingerprint(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.sha256(file.read(FINGERPRINT_BYTES)).hexdigest()


def open_source(data: str | Path, config: _C.Config, split: str) -> Source:
    """Opens `data`. Split "auto" is what was held out of the training file, and all of another file."""
    if split not in ("auto", "validation", "all"):
        raise GenieError(f"split must be auto, validation or all, got {split!r}")
    file = _C.VideoFile(str(data))
    if split != "auto":
        return Source(file, config, split, "as asked for")
    settings = values(config)["data"]
    if not settings["path"] or not same_file(data, settings["path"]):
        return Source(file, config, "all", "the model was not trained on this file")
    if settings["validation_path"] or settings["validation_fraction"] == 0:
        return Source(file, config, "all", "the model was trained on the whole of this file")
    return Source(file, config, "validation", "the episodes of the training file that were held out")


def training_source(evaluated: Source) -> Source | None:
    """The episodes the model learned from, where their file is still there."""
    settings = values(evaluated.config)["data"]
    if not settings["path"] or not Path(settings["path"]).is_file():
        return None
    whole = bool(settings["validation_path"]) or settings["validation_fraction"] == 0
    file = _C.VideoFile(settings["path"])
    return Source(file, evaluated.config, "all" if whole else "training", "trained on")


def in_batches(function: Callable[..., torch.Tensor], batch: int, *inputs: torch.Tensor) -> torch.Tensor:
    """Applies `function` to `batch` samples at a time."""
    parts = zip(*(tensor.split(batch) for tensor in inputs), strict=True)
    return torch.cat([function(*part) for part in parts])
