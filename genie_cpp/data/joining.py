"""Puts the episodes of several video files into one, so that one model can learn from all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from genie_cpp import _C
from genie_cpp.errors import GenieError

FRAMES_AT_ONCE = 256


def join_videos(
    sources: Sequence[str | Path],
    path: str | Path,
    frames: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Writes the episodes of `sources`, one file after the other, to `path`; returns the number of frames.

    Of each source whole episodes up to `frames` frames (all where None; at least one episode). Actions are
    left out: those of different environments have different meanings. Raises GenieError for sources of
    different sizes.
    """
    if not sources:
        raise GenieError("there is nothing to join: name at least one video file")
    files = [_C.VideoFile(str(source)) for source in sources]
    first, written = files[0], 0
    for file in files:
        if (file.height, file.width) != (first.height, first.width):
            raise GenieError(
                f"{file.path}: frames of {file.width}x{file.height} pixels, but {first.path} has "
                f"{first.width}x{first.height}; record or import them at one size"
            )
    fps = first.fps if all(file.fps == first.fps for file in files) else 0.0
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with _C.VideoWriter(str(path), first.height, first.width, fps=fps, env="joined") as writer:
        for file in files:
            begin = 0
            for end in file.episode_ends:
                if frames is not None and begin > 0 and end > frames:
                    break
                for at in range(begin, end, FRAMES_AT_ONCE):
                    part = file.read_frames(at, min(FRAMES_AT_ONCE, end - at))
                    writer.append(part)
                    written += len(part)
                    if progress is not None:
                        progress(written)
                writer.end_episode()
                begin = end
    return written
