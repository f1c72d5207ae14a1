"""Turns ordinary video files (anything FFmpeg reads: mp4, webm, mkv, avi, mov, gif) into one video file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import torch

from genie_cpp import _C
from genie_cpp.errors import GenieError

OWN_RATE_TOLERANCE = 1.01  # 29.97 counts as 30


def import_videos(
    sources: Sequence[str | Path],
    path: str | Path,
    fps: float = 10,
    width: int = 128,
    height: int = 72,
    progress: Callable[[str, int], None] | None = None,
) -> list[int]:
    """Writes each of `sources` as one episode of the video file `path`; returns their numbers of frames.

    A video is sampled at `fps` frames a second of its own clock, scaled (area) and cut centrally to width x
    height. The file has no actions. `progress` is called with the source and the frames written.
    Raises GenieError for a source that is missing, no video, damaged, or slower than `fps`.
    """
    if not sources:
        raise GenieError("there is no video to import: name at least one file")
    if not (math.isfinite(fps) and 0 < fps <= 1000):
        raise GenieError(f"fps must be above 0 and at most 1000, got {fps}")
    if not (8 <= width <= 4096 and 8 <= height <= 4096):
        raise GenieError(f"width and height must be between 8 and 4096 pixels, got {width}x{height}")
    for source in sources:  # before anything is written
        with open_video(source) as container:
            _check_rate(container, source, fps)
    counts = []
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with _C.VideoWriter(str(path), height, width, fps=fps, env="video") as writer:
        for source in sources:
            counts.append(0)
            for frame in _sample(source, fps, width, height):
                writer.append(torch.from_numpy(frame)[None])
                counts[-1] += 1
                if progress is not None:
                    progress(str(source), counts[-1])
            writer.end_episode()
    return counts


def open_video(source: str | Path) -> av.container.InputContainer:
    """A video file, opened. Raises GenieError where it is missing or none."""
    if not Path(source).is_file():
        raise GenieError(f"{source}: there is no such video file")
    try:
        container = av.open(str(source))
    except av.FFmpegError as error:
        raise GenieError(f"{source}: cannot be read as a video ({error.strerror})") from error
    if not container.streams.video:
        container.close()
        raise GenieError(f"{source}: holds no video stream")
    return container


def _check_rate(container: av.container.InputContainer, source: str | Path, fps: float) -> None:
    rate = container.streams.video[0].average_rate
    if rate is not None and rate * OWN_RATE_TOLERANCE < fps:
        raise GenieError(
            f"{source}: has {float(rate):g} frames a second, fewer than the {fps:g} asked for; repeated "
            f"frames would teach that nothing moves, so ask for {float(rate):g} or less"
        )


def _sample(source: str | Path, fps: float, width: int, height: int) -> Iterator[np.ndarray]:
    """The frame shown at each multiple of 1/fps, as uint8 (height,width,3)."""
    with open_video(source) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or fps)
        start, written = None, 0
        try:
            for number, frame in enumerate(container.decode(stream)):
                time = frame.time if frame.time is not None else number / rate
                start = time if start is None else start
                # Half a frame of slack: time stamps are rounded to the container's clock.
                if time - start >= written / fps - 0.5 / max(rate, fps):
                    yield fit_frame(frame, width, height)
                    written += 1
        except av.FFmpegError as error:
            raise GenieError(f"{source}: damaged after {written} frames ({error.strerror})") from error
        if written == 0:
            raise GenieError(f"{source}: holds no frame that can be decoded")


def fit_frame(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """Scales to cover width x height, upright, and cuts what stands over evenly at both sides."""
    turned = frame.rotation % 180 != 0
    shown = (frame.height, frame.width) if turned else (frame.width, frame.height)
    scale = max(width / shown[0], height / shown[1])
    scaled = [max(width, round(shown[0] * scale)), max(height, round(shown[1] * scale))]
    if turned:
        scaled.reverse()
    image = frame.reformat(*scaled, format="rgb24", interpolation="AREA").to_ndarray()
    image = np.rot90(image, (frame.rotation // 90) % 4)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def parse_size(size: str) -> tuple[int, int]:
    """Width and height of "128x72"."""
    width, _, height = size.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise GenieError(f"a size is WIDTHxHEIGHT in pixels, such as 128x72; got {size!r}")
    return int(width), int(height)
