"""The frames that a page has played, kept to be saved."""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path

import numpy as np

from genie_cpp import viz

SHOWN_SIDE = 256


class Recording:
    """The last frames uint8 (H,W,3) of a play, up to `limit` bytes of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: deque[np.ndarray] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    def clear(self) -> None:
        self._frames.clear()

    def add(self, frame: np.ndarray) -> None:
        self._frames.append(frame.copy())
        while len(self._frames) > 1 and len(self._frames) * frame.nbytes > self._limit:
            self._frames.popleft()

    def undo(self, count: int) -> None:
        """Forgets the last `count` frames."""
        for _ in range(min(count, len(self._frames))):
            self._frames.pop()

    def frames(self) -> np.ndarray:
        """uint8 (n,H,W,3)."""
        return np.stack(self._frames)


def encode(frames: np.ndarray, suffix: str, fps: float) -> bytes:
    """A GIF or MP4 file of frames uint8 (n,H,W,3), small ones enlarged by a whole number."""
    scale = max(1, round(SHOWN_SIDE / max(frames.shape[1:3])))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"play.{suffix}"
        viz.save(path, viz.upscale(frames, scale), fps)
        return path.read_bytes()
