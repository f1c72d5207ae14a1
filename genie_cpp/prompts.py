"""Frames of a video file that a world can be played from."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from genie_cpp import _C, generation
from genie_cpp.config_values import values
from genie_cpp.errors import GenieError
from genie_cpp.viz import to_frames


class PromptFile:
    """An HDF5 video file, read at the size and rate of a model's clips.

    `path` None takes data.validation_path or data.path of the model's configuration. Frames are numbered as
    recorded. Raises GenieError for a file that is missing, damaged or does not fit the configuration.
    """

    def __init__(self, path: str | os.PathLike[str] | None, config: _C.Config) -> None:
        settings = values(config)["data"]
        chosen = os.fspath(path) if path is not None else settings["validation_path"] or settings["path"]
        if not chosen:
            raise GenieError("the model's configuration names no data.path: name an HDF5 file to start from")
        if path is None and not Path(chosen).is_file():
            raise GenieError(
                f"{chosen}, which the model was trained on, is not here: name an HDF5 file to start from"
            )
        self.path: str = chosen
        self.file = _C.VideoFile(chosen)
        self.height: int = settings["height"]
        self.width: int = settings["width"]
        self.stride = generation.frame_stride(self.file, config)
        self.longest_context = generation.longest_context(config)
        self._config = config
        ends = self.file.episode_ends
        self.episodes: list[tuple[int, int]] = list(zip([0, *ends[:-1]], ends, strict=True))
        """First frame, and one past the last frame, of each episode."""

    @property
    def fps(self) -> float:
        """Frames a second of the model's clips; 10 where the file states no rate."""
        return self.file.fps / self.stride if self.file.fps else 10.0

    def resized(self, video: torch.Tensor) -> torch.Tensor:
        """Video (T,3,H,W) in [0,1] at the model's size."""
        return generation.fit_frames(video[None], self._config)[0]

    def check_context(self, context: int) -> None:
        generation.check_context(context, self.longest_context)

    def episode_of(self, frame: int) -> int:
        """The number of the episode that a frame belongs to."""
        generation.check_frame(self.file, frame)
        return int(np.searchsorted(self.file.episode_ends, frame, side="right"))

    def read(self, frame: int, context: int) -> np.ndarray:
        """`context` frames that end with number `frame`: uint8 (context,H,W,3) of the model's size."""
        return to_frames(generation.read_prompt(self.file, frame, context, self._config))[0]

    def available_context(self, frame: int, wanted: int) -> int:
        """As many frames of context, up to `wanted`, as the frame's episode has up to it."""
        begin = self.episodes[self.episode_of(frame)][0]
        return min(wanted, self.longest_context, 1 + (frame - begin) // self.stride)

    def draw(self, rng: np.random.Generator, context: int) -> int:
        """A frame with `context` frames of its episode up to it, each such frame equally likely."""
        self.check_context(context)
        before = (context - 1) * self.stride
        room = np.array([max(0, end - begin - before) for begin, end in self.episodes])
        if not room.any():
            raise GenieError(f"{self.path}: no episode has {context} frames at a stride of {self.stride}")
        place = int(rng.integers(room.sum()))
        episode = int(np.searchsorted(room.cumsum(), place, side="right"))
        return self.episodes[episode][0] + before + place - int(room[:episode].sum())
