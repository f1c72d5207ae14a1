"""What a frozen encoder makes of clips, computed once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genie_cpp import _C
from genie_cpp.errors import GenieError
from genie_cpp.probing.clips import ClipSet
from genie_cpp.vision import VisionTransformer

GIB = float(1 << 30)


@dataclass(frozen=True)
class Features:
    """`values` (N,tokens,width) of N clips, and their `labels` int64 (N)."""

    values: Tensor
    labels: Tensor


def encoder_input(frames: Tensor) -> Tensor:
    """Frames uint8 (B,T,H,W,3) as an encoder takes them: float (B,3,T,H,W), colours normalised."""
    return _C.to_encoder_input(frames.permute(0, 1, 4, 2, 3).float() / 255)


def cache_features(
    encoder: VisionTransformer,
    clips: ClipSet,
    batch_size: int = 8,
    path: str | Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Features:
    """Runs `encoder`, in evaluation mode and without masks, on every clip.

    With `path` the values are kept in that file, mapped into memory, so that there may be more of them than
    memory; else in memory. They have the encoder's dtype. Raises GenieError where the disk is too small.
    """
    encoder.eval()
    parameter = next(encoder.parameters())
    store: Tensor | None = None
    for begin in range(0, len(clips), batch_size):
        frames = torch.stack([clips.read(i) for i in range(begin, min(begin + batch_size, len(clips)))])
        with torch.no_grad():
            result = encoder(encoder_input(frames).to(parameter.device, parameter.dtype))
        if isinstance(result, list):
            raise GenieError("a probe reads one output, but the encoder has out_layers; build it without")
        if store is None:
            store = _storage((len(clips), *result.shape[1:]), parameter.dtype, path)
        store[begin : begin + len(frames)] = result.cpu()
        if progress is not None:
            progress(begin + len(frames))
    if store is None:
        raise GenieError("there are no clips to compute features of")
    return Features(store, clips.labels)


def _storage(shape: tuple[int, ...], dtype: torch.dtype, path: str | Path | None) -> Tensor:
    if path is None:
        return torch.empty(shape, dtype=dtype)
    count = torch.Size(shape).numel()
    needed = count * dtype.itemsize
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).unlink(missing_ok=True)
    free = shutil.disk_usage(Path(path).parent).free
    if needed > free:
        raise GenieError(
            f"{path}: the features take {needed / GIB:.1f} GiB, but only {free / GIB:.1f} GiB are free; use "
            "fewer clips, shorter ones, or another disk"
        )
    return torch.from_file(str(path), shared=True, size=count, dtype=dtype).view(shape)
