"""Pictures of video: conversion to and from the models' layout, strips, grids, and video files.

Frames are uint8 arrays (T,H,W,3); the models take float tensors (B,T,3,H,W) in [0,1].
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from genie_cpp.errors import GenieError

VIDEO_SUFFIXES = (".mp4", ".webm")
SUFFIXES = (".gif", ".png", *VIDEO_SUFFIXES)


def to_model(frames: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 (...,T,H,W,3) to float (...,T,3,H,W) in [0,1]."""
    return torch.as_tensor(frames).movedim(-1, -3).float().div(255)


def to_frames(video: torch.Tensor) -> np.ndarray:
    """Float (...,T,3,H,W) in [0,1] (values outside are clipped) to uint8 (...,T,H,W,3)."""
    pixels = video.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return pixels.movedim(-3, -1).cpu().numpy()


def upscale(frames: np.ndarray, scale: int) -> np.ndarray:
    """Repeats each pixel of (...,H,W,3) `scale` times in both directions."""
    return frames.repeat(scale, axis=-3).repeat(scale, axis=-2)


def strip(frames: np.ndarray, gap: int = 2, background: int = 255) -> np.ndarray:
    """Frames (T,H,W,3) side by side, as one image (H, T*W + gaps, 3)."""
    return grid([frames], gap, background)


def grid(rows: Sequence[np.ndarray], gap: int = 2, background: int = 255) -> np.ndarray:
    """Rows of frames (T,H,W,3), all of one size, below one another; shorter rows end early."""
    height, width = rows[0].shape[1:3]
    columns = max(len(row) for row in rows)
    shape = (len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3)
    image = np.full(shape, background, np.uint8)
    for i, row in enumerate(rows):
        for j, frame in enumerate(row):
            top, left = i * (height + gap), j * (width + gap)
            image[top : top + height, left : left + width] = frame
    return image


def labelled_grid(rows: Sequence[tuple[str, np.ndarray]], gap: int = 2) -> np.ndarray:
    """A grid whose rows carry a label at their left."""
    image = grid([frames for _, frames in rows], gap)
    font = ImageFont.load_default(size=13)
    margin = 12 + max(int(font.getlength(label)) for label, _ in rows)
    canvas = Image.new("RGB", (image.shape[1] + margin, image.shape[0]), "white")
    canvas.paste(Image.fromarray(image), (margin, 0))
    draw = ImageDraw.Draw(canvas)
    height = rows[0][1].shape[1]
    for i, (label, _) in enumerate(rows):
        draw.text((6, i * (height + gap) + height // 2), label, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)


def check_suffix(path: str | Path) -> str:
    """The suffix of an output file, in lower case; GenieError where no writer knows it."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise GenieError(
            f"{path}: cannot write {suffix or 'a file without suffix'}; choose one of {', '.join(SUFFIXES)}"
        )
    return suffix


def save(path: str | Path, frames: np.ndarray, fps: float = 10) -> None:
    """Writes frames (T,H,W,3) as a GIF, an MP4 or WebM video, or a PNG strip, by the path's suffix."""
    suffix = check_suffix(path)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".png":
        Image.fromarray(strip(frames)).save(path)
    elif suffix == ".gif":
        # Players treat less than 2 hundredths of a second as 10.
        images = [Image.fromarray(frame) for frame in frames]
        duration = max(20, round(1000 / fps))
        images[0].save(path, save_all=True, append_images=images[1:], duration=duration, loop=0)
    else:
        _save_video(path, frames, fps, "libx264" if suffix == ".mp4" else "libvpx-vp9")


def _save_video(path: str | Path, frames: np.ndarray, fps: float, codec: str) -> None:
    import av

    # 4:2:0 chroma needs even sides.
    pad = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    frames = np.pad(frames, pad, mode="edge")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18"}
        for frame in frames:
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))
            )
        container.mux(stream.encode())
